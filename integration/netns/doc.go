// Package netns runs nodes as processes in network namespaces of their own, in
// the real kernel, and takes packets away between them.
//
// Each test makes three namespaces with a veth pair between any two: a node in
// each of n1 and n2, their directory in dir. nftables then drops what one node
// receives from the other, while both go on reaching the directory. Everything
// is removed with the test, and nothing outlives the test's process: its
// children end when their standard input does, and namespaces that a killed
// test left behind are removed by the next one.
//
// It takes root, iproute2, nftables, and a kernel with namespaces; the tests are
// skipped with the reason where one of them is missing.
package netns
