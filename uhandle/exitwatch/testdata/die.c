// die ends in one of the ways in which a process can end. It says "ready", reads
// a byte, and does what its arguments say; some ways say more and read another.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what)
{
	size_t n = strlen(what);
	if (write(1, what, n) != (ssize_t)n)
		_exit(99);
}

static void hear(void)
{
	char c;
	if (read(0, &c, 1) != 1)
		_exit(98);
}

static void check(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		_exit(97);
	}
}

// outlive is the thread that goes on when the first has ended.
static void *outlive(void *first)
{
	check(pthread_join(*(pthread_t *)first, NULL) == 0, "join");
	say("alone\n");
	hear();
	syscall(SYS_exit, 9); // not exit_group: it is the last
	return NULL;
}

// become executes another program from a thread that is not the first.
static void *become(void *self)
{
	execl(self, self, "exit", "5", NULL);
	check(0, "exec");
	return NULL;
}

static void *idle(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void threads(int n)
{
	pthread_attr_t a;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 65536);
	while (n-- > 0) {
		pthread_t t;
		check(pthread_create(&t, &a, idle, NULL) == 0, "thread");
	}
}

static void touch(size_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(p != MAP_FAILED, "mmap");
	madvise(p, bytes, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < bytes; i += 4096)
		p[i] = 1;
}

// spawn makes n children that wait for the end, and says their numbers. They
// are a process group, and nobody's concern when they have ended.
static void spawn(int n)
{
	signal(SIGCHLD, SIG_IGN);
	setpgid(0, 0);
	while (n-- > 0) {
		pid_t p = fork();
		check(p >= 0, "fork");
		if (p == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
		char line[32];
		snprintf(line, sizeof(line), "%d\n", p);
		say(line);
	}
}

// again makes a child of the given number, which does as "exit 6", and takes
// note of its end.
static void again(pid_t pid, char *self)
{
	struct {
		uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size;
	} args = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1 };
	long p = syscall(SYS_clone3, &args, sizeof(args));
	if (p < 0 && errno == EEXIST)
		_exit(96); // somebody else has it by now
	check(p >= 0, "clone3");
	if (p == 0) {
		execl(self, self, "exit", "6", NULL);
		check(0, "exec");
	}
	check(waitpid(p, NULL, 0) == p, "wait");
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	long n = argc > 2 ? atol(argv[2]) : 0;
	struct rlimit core = { strcmp(how, "core") == 0 ? RLIM_INFINITY : 0, RLIM_INFINITY };
	pthread_t first = pthread_self(), t;
	pid_t p;

	check(setrlimit(RLIMIT_CORE, &core) == 0, "setrlimit");
	if (strcmp(how, "again") == 0) {
		again(n, argv[0]);
		return 0;
	}
	if (strcmp(how, "hog") == 0)
		touch(n);
	if (strcmp(how, "threads") == 0)
		threads(n);
	if (strcmp(how, "spawn") == 0)
		spawn(n);
	if (strcmp(how, "vforked") == 0 && (p = vfork()) != 0) { // the child goes on first, in our memory
		check(p > 0, "vfork");
		waitpid(p, NULL, 0);
		return 0;
	}
	if (strcmp(how, "vforked") == 0) {
		char line[32];
		snprintf(line, sizeof(line), "%d\n", getpid());
		say(line);
	}
	say("ready\n");
	hear();

	if (strcmp(how, "exit") == 0)
		exit(n);
	if (strcmp(how, "signal") == 0 || strcmp(how, "core") == 0) {
		signal(n, SIG_DFL);
		kill(getpid(), n);
	}
	if (strcmp(how, "threads") == 0)
		exit(3);
	if (strcmp(how, "first") == 0) {
		check(pthread_create(&t, NULL, outlive, &first) == 0, "thread");
		pthread_exit(NULL);
	}
	if (strcmp(how, "exec") == 0) {
		execl(argv[0], argv[0], "exit", "4", NULL);
		check(0, "exec");
	}
	if (strcmp(how, "threadexec") == 0)
		check(pthread_create(&t, NULL, become, argv[0]) == 0, "thread");
	if (strcmp(how, "vfork") == 0) {
		p = vfork();
		if (p == 0)
			_exit(8);
		check(p > 0, "vfork");
		waitpid(p, NULL, 0);
		say("vforked\n");
		hear();
		exit(2);
	}
	if (strcmp(how, "eat") == 0)
		for (;;)
			touch(1 << 20);
	for (;;)
		pause();
}
