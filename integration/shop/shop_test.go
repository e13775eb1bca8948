package shop

import (
	"bufio"
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	running = flag.String("url", "", "test the shop that answers at this `address` instead of starting one")
	built   = flag.String("program", "", "test this shop, a `file`, instead of building one")
)

// program is the shop, built once by the first test that starts it.
var program = sync.OnceValues(func() (string, error) {
	if *built != "" {
		return *built, nil
	}
	file := filepath.Join(scratch, "shop")
	build := exec.Command("go", "build", "-o", file, "./shop")
	build.Dir = "../../examples"
	build.Stderr = os.Stderr
	return file, build.Run()
})

// scratch is a folder that is removed after the last test.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "shop")
	if err != nil {
		panic(err)
	}
	scratch = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// long skips a test where only short ones are wanted: the shop is not built with the race detector, so there it would show nothing new.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped: runs without -short; the program under test is another process")
	}
}

// start starts the shop and returns its address once the page answers. At the end of the test the shop must stop cleanly.
func start(t *testing.T, args ...string) string {
	t.Helper()
	if *running != "" {
		return *running
	}
	file, err := program()
	if err != nil {
		t.Fatalf("go build ./examples/shop: %v", err)
	}
	shop := exec.Command(file, args...)
	shop.WaitDelay = 20 * time.Second
	out, err := shop.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said := &lines{}
	shop.Stderr = said
	began := time.Now()
	if err := shop.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for text := bufio.NewScanner(out); text.Scan(); {
			_, _ = said.Write([]byte(text.Text() + "\n"))
			if found := regexp.MustCompile(`http://[\w.:\[\]]+/?`).FindString(text.Text()); found != "" {
				select {
				case address <- found:
				default:
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = shop.Process.Signal(os.Interrupt)
		stuck := time.AfterFunc(30*time.Second, func() { _ = shop.Process.Kill() })
		<-drained
		if err := shop.Wait(); err != nil {
			t.Errorf("the shop ended with %v, want a clean stop within 30s of an interrupt", err)
		}
		stuck.Stop()
		if t.Failed() {
			t.Logf("the shop said:\n%s", said)
		}
	})
	select {
	case found := <-address:
		found = strings.TrimSuffix(found, "/") + "/"
		res, err := http.Get(found)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: got %s", found, res.Status)
		}
		t.Logf("the page answers %.1f s after the start", time.Since(began).Seconds())
		return found
	case <-drained:
	case <-time.After(time.Minute):
	}
	t.Fatal("the shop printed no address within a minute")
	return ""
}

// lines keeps what a process says.
type lines struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// snapshot is the part of the page's JSON that the tests read.
type snapshot struct {
	Database   string
	Protection bool
	Books      struct {
		Balanced           bool
		Violations, Passed int
		Checks             []struct {
			Name, Left, Right, Note string
			OK                      bool
		}
	}
	Services []struct {
		Name     string
		PID      int
		Restarts int
	}
	Outbox struct{ Stored, Published, Handled, Duplicates, Depth, Parked int }
}

func look(t *testing.T, address string) snapshot {
	t.Helper()
	res, err := http.Get(address + "snapshot.json")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var s snapshot
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}
