package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/zfab/zfab/fabric/directory"
)

// authority gives certificates away.
type authority struct {
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{}
	template := x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotAfter: time.Now().Add(time.Hour),
	}
	a.file, _ = a.sign(t, name, &template)
	return a
}

// sign writes a certificate, and its key, into files. The first one is the authority's own.
func (a *authority) sign(t *testing.T, name string, template *x509.Certificate) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = big.NewInt(time.Now().UnixNano()), time.Now().Add(-2*time.Hour)
	if a.cert == nil {
		a.cert, a.key = template, private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == template {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// member is a certificate of one, for names and loopback addresses.
func (a *authority) member(t *testing.T, life time.Duration, names ...string) (cert, key string) {
	t.Helper()
	template := x509.Certificate{
		Subject: pkix.Name{CommonName: "member"}, NotAfter: time.Now().Add(life), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, // etcd asks itself, too
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return a.sign(t, "member", &template)
}

// client is a certificate of one; without a name, as one with it would be the user of that name.
func (a *authority) client(t *testing.T, life time.Duration) (cert, key string) {
	t.Helper()
	return a.sign(t, "client", &x509.Certificate{
		NotAfter: time.Now().Add(life), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// newMember is a cluster of one, with TLS if there is a certificate.
func newMember(t *testing.T, security ...string) (p *program, endpoint string) {
	t.Helper()
	scheme := "http://"
	if len(security) > 0 {
		scheme = "https://"
	}
	dir, peer := t.TempDir(), "http://"+free(t)
	endpoint = free(t)
	p = &program{name: "member", ready: "ready", command: func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], append([]string{"m0", dir, scheme + endpoint, peer, "m0=" + peer}, security...)...)
		cmd.Env = append(os.Environ(), memberVariable+"=1")
		return cmd
	}}
	killAtEnd(t, p)
	mustStart(t, p)
	return p, endpoint
}

// startDirectory runs a directory with these flags, and the user in its environment.
func startDirectory(t *testing.T, user string, flags ...string) (p *program, address string) {
	t.Helper()
	address = "tcp://" + free(t)
	binary := zfab(t)
	p = &program{name: "directory", ready: address, command: func() *exec.Cmd {
		cmd := exec.Command(binary, append([]string{"directory", "--listen", address}, flags...)...)
		cmd.Env = append(os.Environ(), "ZFAB_STORE_USER="+user)
		return cmd
	}}
	killAtEnd(t, p)
	mustStart(t, p)
	return p, address
}

// refused is that a directory with these flags does not start, with an exit code, and says why.
func refused(t *testing.T, name string, code int, says string, flags ...string) {
	t.Helper()
	got, stdout, stderr := command(t, append([]string{"directory", "--listen", "tcp://127.0.0.1:0"}, flags...)...)
	if got != code || stdout != "" || !strings.Contains(stderr, says) {
		t.Errorf("%s: exit code %d, want %d; it said %s%s, want %s", name, got, code, stdout, stderr, says)
	}
}

// A directory shares a store with TLS on both sides; and says what is wrong where something is.
func TestStoreWithTLS(t *testing.T) {
	a := newAuthority(t, "authority")
	cert, key := a.member(t, time.Hour, "127.0.0.1", "etcd.example")
	p, endpoint := newMember(t, cert, key, a.file)
	ours, ourKey := a.client(t, time.Hour)
	store := []string{"--store", "etcds://" + endpoint + "/secure"}
	with := func(flags ...string) []string { return append(store[:2:2], flags...) }

	_, address := startDirectory(t, "", with("--store-ca", a.file, "--store-cert", ours, "--store-key", ourKey)...)
	_, named := startDirectory(t, "", with("--store-ca", a.file, "--store-cert", ours, "--store-key", ourKey, "--store-server-name", "etcd.example")...)
	d, other := dial(t, []string{address}, 0), dial(t, []string{named}, 1)
	if _, err := d.Join(t.Context(), directory.NodeInfo{Name: "n", Endpoint: "tcp://h:1"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the other directory to know", func() bool {
		n, err := other.Node(t.Context(), "n")
		return err == nil && n.Endpoint == "tcp://h:1"
	})

	stranger := newAuthority(t, "stranger")
	theirs, theirKey := stranger.client(t, time.Hour)
	expired, expiredKey := a.client(t, -time.Hour)
	trust := []string{"--store-ca", a.file}
	refused(t, "members of an authority that nobody knows", 69, "certificate signed by unknown authority", with("--store-ca", stranger.file, "--store-cert", ours, "--store-key", ourKey)...)
	refused(t, "no certificate", 69, "is unavailable", with(trust...)...)
	refused(t, "a certificate of another authority", 69, "is unavailable", with(append(trust, "--store-cert", theirs, "--store-key", theirKey)...)...)
	refused(t, "an expired certificate", 65, expired+": the certificate has expired on ", with(append(trust, "--store-cert", expired, "--store-key", expiredKey)...)...)
	refused(t, "the key of another certificate", 65, "private key does not match public key", with(append(trust, "--store-cert", ours, "--store-key", theirKey)...)...)
	refused(t, "another name", 69, "not elsewhere.example", with(append(trust, "--store-cert", ours, "--store-key", ourKey, "--store-server-name", "elsewhere.example")...)...)
	refused(t, "an authority that nobody knows, and a name", 69, "certificate signed by unknown authority", with("--store-ca", stranger.file, "--store-cert", ours, "--store-key", ourKey, "--store-server-name", "etcd.example")...)
	refused(t, "without TLS", 69, "is unavailable", "--store", "etcd://"+endpoint)

	// It goes on when the member is back.
	p.kill()
	mustStart(t, p)
	until(t, "the directory to go on", func() bool {
		_, err := dial(t, []string{address}, 2).Join(t.Context(), directory.NodeInfo{Name: "later"})
		return err == nil
	})

	old, oldKey := a.member(t, -time.Hour, "127.0.0.1")
	_, outdated := newMember(t, old, oldKey, a.file)
	refused(t, "a member whose certificate has expired", 69, "certificate has expired", "--store", "etcds://"+outdated, "--store-ca", a.file, "--store-cert", ours, "--store-key", ourKey)
	_, plain := newMember(t)
	refused(t, "TLS with who has none", 69, "authentication handshake failed", "--store", "etcds://"+plain, "--store-ca", a.file)
}

// A directory is a user of its store, from a file or the environment. It goes on when the members have forgotten its
// token, and says so if it is refused.
func TestStoreWithUser(t *testing.T) {
	a := newAuthority(t, "authority")
	cert, key := a.member(t, time.Hour, "127.0.0.1")
	p, endpoint := newMember(t, cert, key, a.file)
	ours, ourKey := a.client(t, time.Hour)
	enableUsers(t, endpoint, a.file, ours, ourKey)
	flags := func(prefix string, more ...string) []string {
		return append([]string{"--store", "etcds://" + endpoint + prefix, "--store-ca", a.file, "--store-cert", ours, "--store-key", ourKey, "--lease", "3s"}, more...)
	}
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "user")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}

	_, address := startDirectory(t, "fabric:secret", flags("")...)
	_, second := startDirectory(t, "fabric:wrong", flags("", "--store-user-file", file("fabric:secret\n"))...) // the flag counts
	d, other := dial(t, []string{address}, 0), dial(t, []string{second}, 1)
	incarnation, err := d.Join(t.Context(), directory.NodeInfo{Name: "n", Endpoint: "tcp://h:1"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the other directory to know", func() bool { _, err := other.Node(t.Context(), "n"); return err == nil })

	refused(t, "nobody", 69, "permission denied", flags("")...)
	refused(t, "a wrong password", 69, "authentication failed, invalid user ID or password", flags("", "--store-user-file", file("fabric:wrong"))...)
	refused(t, "an unknown user", 69, "authentication failed, invalid user ID or password", flags("", "--store-user-file", file("nobody:secret"))...)
	refused(t, "somebody else's keys", 69, "permission denied", flags("/elsewhere", "--store-user-file", file("fabric:secret"))...)

	// A member that is started anew knows no tokens. Registrations are changed, told and renewed again.
	p.kill()
	mustStart(t, p)
	w, err := other.Watch(t.Context(), "c")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	expect(t, w, "synced")
	until(t, "a change", func() bool {
		return d.Add(t.Context(), incarnation, directory.Member{Channel: "c", Role: directory.Consumer, Node: "n"}) == nil
	})
	expect(t, w, "added c/n/0")
	// Who came later and renews nothing is gone, and who renews is there.
	mortal := dial(t, []string{address}, 2)
	if _, err := mortal.Join(t.Context(), directory.NodeInfo{Name: "mortal"}); err != nil {
		t.Fatal(err)
	}
	if err := mortal.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "the end of a lease", func() bool {
		_, err := other.Lookup(t.Context(), "mortal")
		return errors.Is(err, directory.ErrUnknownNode)
	})
	if e, err := other.Lookup(t.Context(), "n"); err != nil || e.Node.Incarnation != incarnation {
		t.Errorf("it is not renewed: %+v, %v", e, err)
	}
}

// enableUsers has the member ask who somebody is: root, or fabric, who may do what they like with keys behind /zfab/.
func enableUsers(t *testing.T, endpoint, ca, cert, key string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + endpoint}, Logger: zap.NewNop(), TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(client.UserAdd(ctx, "root", "root"))
	must(client.UserGrantRole(ctx, "root", "root"))
	must(client.RoleAdd(ctx, "fabric"))
	must(client.RoleGrantPermission(ctx, "fabric", "/zfab/", clientv3.GetPrefixRangeEnd("/zfab/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	must(client.UserAdd(ctx, "fabric", "secret"))
	must(client.UserGrantRole(ctx, "fabric", "fabric"))
	must(client.AuthEnable(ctx))
}
