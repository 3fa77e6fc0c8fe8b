package server

// childEnv names the child that a process of the test's binary is to be.
const childEnv = "MPOOL_SERVER_TEST_CHILD"

var children = map[string]func(){}
