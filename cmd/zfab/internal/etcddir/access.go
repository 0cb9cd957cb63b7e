package etcddir

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Access says how to get at a cluster that does not let everybody in. The zero value
// has the authorities that the system trusts, no certificate and no user.
type Access struct {
	// CA is a file of the authorities, in PEM, that the members' certificates come from.
	CA string
	// Cert and Key are files, in PEM: this client's certificate, and behind it those of
	// authorities in between, and its key. They are read anew for each connection, so
	// that they can be replaced while the directory runs.
	Cert, Key string
	// ServerName is the name that the members' certificates have to be for. Default:
	// the host of each, as the URL has it.
	ServerName string
	// User is "user:password", for a cluster that asks for one.
	User string
}

// A FileError is that a file cannot be read, or does not have in it what it should.
type FileError struct {
	File   string
	Reason error
}

func (e *FileError) Error() string { return fmt.Sprintf("%s: %v", e.File, e.Reason) }
func (e *FileError) Unwrap() error { return e.Reason }

// ReadUser returns the first line of a file, which is to be "user:password".
func ReadUser(file string) (string, error) {
	text, err := read(file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSuffix(line, "\r")
	if _, _, err := userOf(line); err != nil {
		return "", &FileError{file, err}
	}
	return line, nil
}

// CheckUser says what is wrong with text, without telling it, if that is not
// "user:password".
func CheckUser(text string) error {
	_, _, err := userOf(text)
	return err
}

// userOf takes "user:password" apart. Its error does not have it.
func userOf(text string) (user, password string, err error) {
	user, password, ok := strings.Cut(text, ":")
	if !ok || user == "" || password == "" {
		return "", "", errors.New("give user:password, neither of them empty")
	}
	return user, password, nil
}

// tls is what a connection to a member is encrypted with.
func (a *Access) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CA != "" {
		text, err := read(a.CA)
		if err != nil {
			return nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, &FileError{a.CA, errors.New("there is no certificate in it, in PEM")}
		}
	}
	if a.ServerName != "" {
		// gRPC puts the address that it dials in the place of Config.ServerName. So what
		// the standard library does unless it is to skip it is done here, for that name.
		cfg.InsecureSkipVerify = true
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range cs.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: a.ServerName, Roots: cfg.RootCAs, Intermediates: between})
			return err
		}
	}
	if (a.Cert == "") != (a.Key == "") {
		return nil, errors.New("a certificate needs its key, and a key its certificate")
	}
	if a.Cert == "" {
		return cfg, nil
	}
	pair, err := a.pair()
	if err != nil {
		return nil, err
	}
	if until := pair.Leaf.NotAfter; time.Now().After(until) {
		return nil, &FileError{a.Cert, fmt.Errorf("the certificate has expired on %s", until.UTC().Format(time.RFC3339))}
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return a.pair() }
	return cfg, nil
}

// pair is this client's certificate, as its files are now.
func (a *Access) pair() (*tls.Certificate, error) {
	cert, err := read(a.Cert)
	if err != nil {
		return nil, err
	}
	key, err := read(a.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, &FileError{a.Cert + " with " + a.Key, err}
	}
	return &pair, nil
}

// maxFile is how long a file of certificates may be, in bytes: a file that goes on and
// on is another one.
const maxFile = 4 << 20

func read(file string) ([]byte, error) {
	text, err := func() ([]byte, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, maxFile+1))
	}()
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // which does not name the file once more
	}
	if err != nil {
		return nil, &FileError{file, err}
	}
	if len(text) > maxFile {
		return nil, &FileError{file, fmt.Errorf("it has more than %d bytes", maxFile)}
	}
	return text, nil
}
