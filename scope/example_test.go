package scope_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mpool-go/mpool/scope"
)

// A service reserves memory before it uses it, in a span that gives all back.
func Example() {
	manager, err := scope.New(scope.Options{
		Layers: map[string]scope.Layer{"file": {
			"system":        {scope.Memory: scope.Fixed(1 << 20)},
			"service:store": {scope.Memory: scope.Fixed(64 << 10)},
		}},
	})
	if err != nil {
		panic(err)
	}
	service, err := manager.Service("store")
	if err != nil {
		panic(err)
	}
	defer service.Close()

	span, err := service.BeginSpan()
	if err != nil {
		panic(err)
	}
	defer span.Done()

	if err := span.ReserveMemory(48<<10, scope.MaxPriority); err != nil {
		panic(err)
	}
	// ... use memory
	fmt.Println("used by the service:", service.Used(scope.Memory))
	fmt.Println("used by the system:", manager.System().Used(scope.Memory))

	err = span.ReserveMemory(32<<10, scope.MaxPriority)
	if limit, ok := errors.AsType[*scope.LimitError](err); ok {
		fmt.Println(limit)
	}
	// Output:
	// used by the service: 49152
	// used by the system: 49152
	// scope service:store protects its memory: 49152 used and 32768 asked are more than the limit of 65536 (file); to change: service:store.memory
}

// A unit of work begins when the task limits let it, and uses memory as a span does.
func ExampleScope_BeginTask() {
	manager, err := scope.New(scope.Options{
		Layers: map[string]scope.Layer{"file": {"service": {scope.TasksLow: scope.Fixed(2), scope.Memory: scope.Fixed(1 << 20)}}},
	})
	if err != nil {
		panic(err)
	}
	service, err := manager.Service("store")
	if err != nil {
		panic(err)
	}
	defer service.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	scrub, err := service.BeginTask(ctx, scope.TasksLow)
	if err != nil {
		panic(err) // the minute is over, too many wait, or the service is closed
	}
	if err := scrub.ReserveMemory(64<<10, 127); err != nil { // if half of the memory is free
		panic(err)
	}
	fmt.Println(service.Used(scope.Tasks), service.Used(scope.Memory))
	if err := scrub.Done(); err != nil {
		panic(err)
	}
	fmt.Println(service.Used(scope.Tasks), service.Used(scope.Memory))
	// Output:
	// 1 65536
	// 0 0
}

// A connection is charged to Transient until it is known whose it is.
func ExampleScope_Move() {
	manager, err := scope.New(scope.Options{})
	if err != nil {
		panic(err)
	}
	conn, err := manager.OpenConnection("connection:1", scope.Inbound, time.Now().Add(5*time.Second),
		scope.Amount{Kind: scope.Descriptors, N: 1})
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	client, err := manager.Client("4711")
	if err != nil {
		panic(err)
	}
	defer client.Close()
	fmt.Println(manager.Transient().Used(scope.Connections), client.Used(scope.Connections))
	if err := conn.Move(client); err != nil {
		panic(err)
	}
	fmt.Println(manager.Transient().Used(scope.Connections), client.Used(scope.Connections))
	// Output:
	// 1 0
	// 0 1
}
