// Command etcdmember is a member of an etcd cluster, for the compose files that need
// one: etcd's own server, in a program that needs nothing beside it.
//
//	etcdmember NAME HOST DIRECTORY NAME=HOST...
//
// It serves clients at port 2379 of its host and peers at port 2380, and runs until it
// is interrupted.
package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "etcdmember:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 4 {
		return fmt.Errorf("usage: etcdmember NAME HOST DIRECTORY NAME=HOST...")
	}
	name, host, dir := args[0], args[1], args[2]
	addrs, err := net.LookupHost(host)
	if err != nil {
		return err
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = name, dir
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = at(addrs[0], "2379"), at(host, "2379")
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = at(addrs[0], "2380"), at(host, "2380")
	var members []string
	for _, member := range args[3:] {
		name, host, named := strings.Cut(member, "=")
		if !named {
			return fmt.Errorf("%q is no NAME=HOST", member)
		}
		members = append(members, fmt.Sprintf("%s=http://%s", name, net.JoinHostPort(host, "2380")))
	}
	cfg.InitialCluster = strings.Join(members, ",")
	cfg.LogLevel, cfg.LogOutputs = "error", []string{"stderr"}
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	defer server.Close()
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	select {
	case <-interrupted:
		return nil
	case err := <-server.Err():
		return err
	}
}

func at(host, port string) []url.URL {
	return []url.URL{{Scheme: "http", Host: net.JoinHostPort(host, port)}}
}
