package saga_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuTime returns the processor time of this process and that of the server's
// processes which work for the database, as far as the machine tells (Linux, a
// server on the same machine). Unlike a rate it does not depend on who else
// keeps the processors busy.
func cpuTime(database string) (own, server time.Duration) {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) == nil {
		own = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	if database == "" {
		return own, 0
	}
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range list {
		text, err := os.ReadFile(file)
		if err != nil || !bytes.HasPrefix(text, []byte("postgres: ")) || !bytes.Contains(text, []byte(" "+database+" ")) {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(file), "stat"))
		if err != nil {
			continue
		}
		// After "(comm) ": state is field 3, utime and stime 14 and 15, in
		// hundredths of a second.
		_, rest, _ := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		if len(f) > 12 {
			u, _ := strconv.Atoi(f[11])
			s, _ := strconv.Atoi(f[12])
			server += time.Duration(u+s) * 10 * time.Millisecond
		}
	}
	return own, server
}
