// Package etcddir lets several directories share their registrations in an etcd cluster: it is a directory.Shared. It is
// the only package that knows etcd's client; who uses the library does not build it.
//
// What is put where, and which transactions are made, is the directory's affair (fabric/directory/PROTOCOL.md, "Several
// directories"). This package says each of a Shared's verbs in etcd's:
//
//	an entry       a key behind the prefix; its revision is the key's mod_revision
//	a transaction  a Txn that compares mod_revisions; a key that is not there has 0
//	a lease        an etcd lease, of whole seconds and at least as many as the cluster allows. When it ends, etcd removes
//	               its keys in one transaction of its own, so all directories hear of it as of any other change
//	a renewal      one message of a LeaseKeepAlive stream. It goes to the leader, and nothing is written for it
//	the revision   the header of a linearizable read of nothing: the leader asks a majority whether it still is the leader
//	a watch        one watch of the prefix, whole revisions at a time, which requires a leader. A revision that is
//	               somebody else's, in a cluster with other uses, brings no event: then progress is asked for
//
// With a user, every new stream costs the cluster a check of the password, and so does a member that does not know the
// token of this client: etcd's client asks for another one then. A certificate is read from its files for each connection.
//
// While the cluster has no leader no verb answers; the directory bounds each by a context. One member is asked at a time,
// and given up for the next as soon as it fails, or hangs for half a second.
package etcddir
