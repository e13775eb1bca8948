package layout_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/backstay-go/backstay/internal/layout"
)

// third lists what the root module may require, and nothing else; see docs/design.md.
var third = []string{
	"github.com/sony/gobreaker/v2",
	"github.com/cenkalti/backoff/v4",
	"golang.org/x/time",
	"go.opentelemetry.io/otel",
	"go.opentelemetry.io/otel/metric",
	"go.opentelemetry.io/otel/trace",
}

const (
	gobreaker = "github.com/sony/gobreaker/v2"
	backoff   = "github.com/cenkalti/backoff/v4"
	xrate     = "golang.org/x/time/rate"
	otel      = "go.opentelemetry.io/otel/..."
)

var policies = []string{"breaker", "retry", "timeout", "bulkhead", "hedge", "ratelimit", "fallback", "adaptive", "chaos"}

// mayImport says what a package may import besides the standard library: folders of this repository and modules of others. A pattern ends in "/..." for all
// below it. The first rule whose pattern matches the package counts.
var mayImport = []struct {
	pkg  string
	from []string
}{
	{".", []string{"internal/tap"}}, // which imports nothing
	{"internal/...", []string{".", "internal/..."}},

	{"breaker", []string{".", "internal/...", gobreaker}},
	{"retry", []string{".", "internal/...", "budget", backoff}},
	{"ratelimit", []string{".", "internal/...", xrate}},
	{"hedge", []string{".", "internal/...", "budget"}},
	{"budget", []string{".", "internal/..."}},
	{"timeout", []string{".", "internal/..."}},
	{"bulkhead", []string{".", "internal/..."}},
	{"fallback", []string{".", "internal/..."}},
	{"adaptive", []string{".", "internal/..."}},
	{"chaos", []string{".", "internal/..."}},

	{"standard", append([]string{".", "internal/...", "budget"}, policies...)},
	{"telemetry", []string{".", "internal/...", otel}},
	{"httpclient", append([]string{".", "internal/...", "budget", "standard", "telemetry"}, policies...)},
	{"grpcclient/...", append([]string{".", "internal/...", "budget", "standard", "telemetry", "saga/guard", "grpcclient/...", "google.golang.org/...", otel}, policies...)},

	{"saga/guard/guardtest", []string{".", "internal/...", "saga/guard"}},
	{"saga/guard", []string{".", "internal/..."}},
	{"saga/internal/...", []string{".", "internal/...", "saga", "saga/guard", "saga/internal/..."}},
	{"saga/sagapgx", []string{".", "internal/...", "saga", "saga/guard", "saga/sagasql", "saga/internal/...", "github.com/jackc/pgx/v5/..."}},
	{"saga/sagasql", []string{".", "internal/...", "saga", "saga/guard", "saga/internal/..."}},
	{"saga/sagamem", []string{".", "internal/...", "saga", "saga/guard"}},
	{"saga/sagatest", []string{".", "internal/...", "saga", "saga/guard", "saga/sagamem"}},
	{"saga", []string{".", "internal/...", "telemetry", xrate, otel}},

	{"outbox/outboxpgx", []string{".", "internal/...", "outbox", "outbox/outboxsql", "github.com/jackc/pgx/v5/..."}},
	{"outbox/natspub", []string{".", "internal/...", "outbox", "outbox/cloudevents", "outbox/consumer", "github.com/nats-io/nats.go/..."}},
	{"outbox/kafkapub", []string{".", "internal/...", "outbox", "outbox/cloudevents", "outbox/consumer", "github.com/twmb/franz-go/..."}},
	{"outbox/amqppub", []string{".", "internal/...", "outbox", "outbox/cloudevents", "outbox/consumer", "github.com/rabbitmq/amqp091-go"}},
	{"outbox/redispub", []string{".", "internal/...", "outbox", "outbox/cloudevents", "outbox/consumer", "github.com/redis/go-redis/v9/..."}},
	{"outbox/watermillpub", []string{".", "internal/...", "outbox", "outbox/cloudevents", "outbox/consumer", "github.com/ThreeDotsLabs/watermill/..."}},
	{"outbox/webhookpub", []string{".", "internal/...", "outbox", "outbox/cloudevents"}},
	{"outbox/cloudevents", []string{".", "internal/...", "outbox"}},
	{"outbox/consumer", []string{".", "internal/...", "outbox"}},
	{"outbox/outboxsql", []string{".", "internal/...", "outbox"}},
	{"outbox/outboxmem", []string{".", "internal/...", "outbox"}},
	{"outbox/outboxtest", []string{".", "internal/...", "outbox", "outbox/outboxmem"}},
	{"outbox", []string{".", "internal/...", "telemetry", xrate, otel}},
}

// match reports whether name is pattern, or below it when pattern ends in "/...".
func match(pattern, name string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == base || strings.HasPrefix(name, base+"/")
	}
	return name == pattern
}

func isStandard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// local returns the folder of a package of this repository; others keep their path.
func local(importPath string) string {
	if importPath == layout.Module {
		return "."
	}
	return strings.TrimPrefix(importPath, layout.Module+"/")
}

func allowed(pkg, imported string) bool {
	for _, rule := range mayImport {
		if !match(rule.pkg, pkg) {
			continue
		}
		return slices.ContainsFunc(rule.from, func(pattern string) bool { return match(pattern, local(imported)) })
	}
	return false
}

// TestImports holds who may import whom, in every module that users can import.
func TestImports(t *testing.T) {
	for _, p := range read(t) {
		first, _, _ := strings.Cut(p.Dir, "/")
		if slices.Contains([]string{"examples", "integration", "bench"}, first) || strings.HasPrefix(p.Dir, "internal/tools") {
			continue
		}
		for imported := range layout.Imports(p.Files) {
			if !isStandard(imported) && !allowed(p.Dir, imported) {
				t.Errorf("package %s must not import %s", p.Dir, imported)
			}
		}
	}
}

// TestRootTests holds that tests of the root module need nothing but the standard library and the module itself. What needs a driver, a
// broker or an SDK is tested in integration/.
func TestRootTests(t *testing.T) {
	all := read(t)
	own := map[string]bool{}
	for _, p := range all {
		own[p.Path()] = p.Mod == "."
	}
	for _, p := range all {
		if p.Mod != "." {
			continue
		}
		for imported := range layout.Imports(p.Tests) {
			if !isStandard(imported) && !own[imported] && !allowed(p.Dir, imported) {
				t.Errorf("a test in %s must not import %s", p.Dir, imported)
			}
		}
	}
}

// TestDependencies holds what a user of the root module links: each package, with everything below it.
func TestDependencies(t *testing.T) {
	type pkg struct {
		ImportPath string
		Standard   bool
		Module     *struct{ Path string }
		Deps       []string
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Module,Deps", "./...")
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	all := map[string]pkg{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
	// Which modules of others may be linked, whatever the path on which they come.
	may := func(dir string) []string {
		switch dir {
		case "breaker":
			return []string{"github.com/sony/gobreaker/v2"}
		case "retry":
			return []string{"github.com/cenkalti/backoff/v4"}
		case "ratelimit":
			return []string{"golang.org/x/time"}
		case ".", "budget", "timeout", "bulkhead", "hedge", "fallback", "adaptive", "chaos":
			return nil
		}
		if strings.HasPrefix(dir, "internal/") {
			return nil
		}
		// Modules that the OpenTelemetry API links come with it.
		return append([]string{"github.com/cespare/xxhash/v2", "github.com/go-logr/logr", "github.com/go-logr/stdr", "go.opentelemetry.io/auto/sdk", "go.opentelemetry.io/otel/log"}, third...)
	}
	for _, p := range all {
		if p.Module == nil || p.Module.Path != layout.Module {
			continue
		}
		dir := local(p.ImportPath)
		for _, d := range p.Deps {
			dep, ok := all[d]
			if !ok || dep.Standard || dep.Module == nil || dep.Module.Path == layout.Module {
				continue
			}
			if !slices.Contains(may(dir), dep.Module.Path) {
				t.Errorf("package %s links %s of module %s", dir, d, dep.Module.Path)
			}
		}
	}
}

// TestRequirements holds the requirements of the root go.mod.
func TestRequirements(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace, Exclude, Tool []json.RawMessage
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if !r.Indirect && !slices.Contains(third, r.Path) {
			t.Errorf("the root module must not require %s", r.Path)
		}
	}
	if n := len(mod.Replace) + len(mod.Exclude) + len(mod.Tool); n > 0 {
		t.Errorf("got %d replace, exclude and tool directives in the root go.mod, want 0", n)
	}
}

// TestSignatures holds that no type of a dependency stands in an exported signature of the root module, so that it can be
// replaced without breaking users. *rate.Limiter may be handed over; telemetry takes OpenTelemetry's providers.
func TestSignatures(t *testing.T) {
	for _, p := range read(t) {
		if p.Internal() || p.Mod != "." || p.Dir == "telemetry" {
			continue
		}
		var foreign []string
		for imported := range layout.Imports(p.Files) {
			if !isStandard(imported) && !strings.HasPrefix(imported, layout.Module) {
				name := path.Base(imported)
				if strings.HasPrefix(name, "v") { // a major version
					name = path.Base(path.Dir(imported))
				}
				foreign = append(foreign, name+".")
			}
		}
		for _, line := range layout.API(p) {
			for _, name := range foreign {
				rest := strings.ReplaceAll(line, "*rate.Limiter", "")
				if strings.Contains(rest, " "+name) || strings.Contains(rest, "*"+name) || strings.Contains(rest, "]"+name) || strings.Contains(rest, "("+name) {
					t.Errorf("package %s: a type of a dependency in %s", p.Dir, line)
				}
			}
		}
	}
}

// TestShape holds two habits: no file that is too long to read in one go, no package named for nothing in particular.
func TestShape(t *testing.T) {
	for _, p := range read(t) {
		if slices.Contains([]string{"util", "utils", "common", "helpers", "misc"}, p.Name) {
			t.Errorf("package %s: name it for what it is about", p.Dir)
		}
		for name, f := range p.Files {
			if lines := p.Fset.File(f.Pos()).LineCount(); lines > 500 && !ast.IsGenerated(f) {
				t.Errorf("%s has %d lines: is there an idea in it that can have its own file?", name, lines)
			}
		}
	}
}

// TestMap holds that docs/design.md has a place for every package that users can import.
func TestMap(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "design.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range read(t) {
		if p.Internal() || len(p.Files) == 0 || p.Dir == "." {
			continue
		}
		if !strings.Contains(string(text), "`"+p.Dir+"`") {
			t.Errorf("docs/design.md does not mention package `%s`", p.Dir)
		}
	}
}
