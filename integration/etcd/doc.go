// Package etcd runs directories that share a real etcd cluster: three members, each an etcd server in a process of its own
// that can be killed, and `zfab directory --store etcd://...` processes, as many as a test wants, with the nodes of a
// fabric that use them.
//
// TestDirectoriesAndLeadersDie kills leaders and directories under a running exchange: few of them by default, 20 and 50
// with `make etcd-soak`. TestLinearizable records what clients of several directories were answered, to
// register, look up, renew and expire, and has porcupine judge whether that can be the history of one table.
//
// Everything is on loopback and in temporary directories, and ends with the tests.
package etcd
