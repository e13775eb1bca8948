package outboxtest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

func testCommit(t *testing.T, s Store) {
	tx := s.begin(t)
	if err := tx.Enqueue(t.Context(), outbox.Message{ID: "m1", Topic: "t", Key: "k", Payload: []byte("p")}); err != nil {
		t.Fatal(err)
	}
	if !s.OneWriter {
		if got := s.all(t); len(got) != 0 {
			t.Errorf("before the commit: read %d rows, want 0", len(got))
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	got := s.all(t)
	if len(got) != 1 || got[0].Message.ID != "m1" || got[0].Message.Seq == 0 {
		t.Fatalf("after the commit: got %+v, want m1 with a number", got)
	}
	if want := outbox.PartitionOf("k", s.Parts); got[0].Part != want {
		t.Errorf("partition of k: got %d, want %d", got[0].Part, want)
	}
}

func testRollback(t *testing.T, s Store) {
	tx := s.begin(t)
	if err := tx.Enqueue(t.Context(), outbox.Message{Topic: "t"}, outbox.Message{Topic: "t"}, outbox.Message{Topic: "t", Delay: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Source.Tend(t.Context(), 10, 0); err != nil || got.Due != 0 || got.Next >= 0 {
		t.Errorf("Tend: got %+v, %v, want nothing scheduled", got, err)
	}
	if got := s.all(t); len(got) != 0 {
		t.Errorf("read %d rows, want 0", len(got))
	}
}

func testOrder(t *testing.T, s Store) {
	tx := s.begin(t)
	n := 0
	for _, size := range []int{1, 2, 3000, 1} {
		batch := make([]outbox.Message, size)
		for i := range batch {
			batch[i] = outbox.Message{ID: fmt.Sprint("m", n), Topic: "t", Key: "k"}
			n++
		}
		if err := tx.Enqueue(t.Context(), batch...); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	got := s.all(t)
	if len(got) != n {
		t.Fatalf("read %d rows, want %d", len(got), n)
	}
	for i, r := range got {
		if want := fmt.Sprint("m", i); r.Message.ID != want {
			t.Fatalf("row %d: got %s, want %s", i, r.Message.ID, want)
		}
		if i > 0 && r.Message.Seq <= got[i-1].Message.Seq {
			t.Fatalf("row %d: number %d after %d", i, r.Message.Seq, got[i-1].Message.Seq)
		}
	}
}

func testLate(t *testing.T, s Store) {
	if s.OneWriter {
		t.Skip("transactions of this store cannot overlap")
	}
	late := s.begin(t)
	if err := late.Enqueue(t.Context(), outbox.Message{ID: "late", Topic: "t", Key: "k"}); err != nil {
		t.Fatal(err)
	}
	s.enqueue(t, outbox.Message{ID: "early", Topic: "t", Key: "l"}) // strict keys would make one key wait
	if got := s.all(t); len(got) != 1 || got[0].Message.ID != "early" {
		t.Fatalf("before the late commit: got %d rows, want early alone", len(got))
	}
	if err := late.Commit(); err != nil {
		t.Fatal(err)
	}
	seq := map[string]int64{}
	for _, r := range s.all(t) {
		seq[r.Message.ID] = r.Message.Seq
	}
	if len(seq) != 2 || seq["late"] >= seq["early"] {
		t.Errorf("after it: got numbers %v, want late's below early's", seq)
	}
}

func testRefuses(t *testing.T, s Store) {
	for name, bad := range map[string]outbox.Message{
		"no topic":            {},
		"NUL in the topic":    {Topic: "a\x00"},
		"NUL in the key":      {Topic: "t", Key: "\x00"},
		"invalid UTF-8":       {Topic: "t", Key: "\xff"},
		"long key":            {Topic: "t", Key: string(make([]byte, 300))},
		"line in a header":    {Topic: "t", Headers: map[string]string{"a": "b\r\nc: d"}},
		"space ends a header": {Topic: "t", Headers: map[string]string{"a": "b "}},
		"NUL in a header":     {Topic: "t", Headers: map[string]string{"a": "\x00"}},
		"space in an id":      {Topic: "t", ID: "a b"},
		"too large a payload": {Topic: "t", Payload: make([]byte, 2<<20)},
	} {
		tx := s.begin(t)
		err := tx.Enqueue(t.Context(), outbox.Message{Topic: "good"}, bad)
		var invalid *outbox.InvalidError
		if !errors.As(err, &invalid) || !errors.Is(err, outbox.ErrInvalid) {
			t.Errorf("%s: got %v, want an InvalidError", name, err)
		}
		if err := tx.Commit(); err != nil { // the transaction is still good
			t.Errorf("%s: Commit: %v", name, err)
		}
	}
	if got := s.all(t); len(got) != 0 {
		t.Errorf("read %d rows, want 0", len(got))
	}
}

func testBytes(t *testing.T, s Store) {
	payload := make([]byte, 256)
	for i := range payload {
		payload[i] = byte(i)
	}
	headers := map[string]string{"a": "ä, ü: \"{}\\", "B-c": "", "tab": "a\tb"}
	expires := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	want := outbox.Message{ID: `id"{},'`, Topic: `t"{},\'`, Key: "schlüssel \"{},\\' ", Payload: payload, Headers: headers, ContentType: "text/plain; charset=utf-8", ExpiresAt: expires}
	s.enqueue(t, want)                                       // the way of one message
	s.enqueue(t, want, outbox.Message{Topic: "t", Key: "z"}) // the way of several
	var got []outbox.Message
	for _, r := range s.all(t) {
		if r.Message.Topic == want.Topic {
			got = append(got, r.Message)
		} else if len(r.Message.Payload) != 0 || len(r.Message.Headers) != 0 || !r.Message.ExpiresAt.IsZero() || len(r.Message.ID) != 36 {
			t.Errorf("empty message: got %+v, want no payload, no headers, no expiry and an id of 36 bytes", r.Message)
		}
	}
	if len(got) != 2 {
		t.Fatalf("read %d rows, want 2", len(got))
	}
	for _, m := range got {
		if m.ID != want.ID || m.Key != want.Key || m.ContentType != want.ContentType || !bytes.Equal(m.Payload, payload) || !maps.Equal(m.Headers, headers) || !m.ExpiresAt.Equal(expires) {
			t.Errorf("got %+v, want %+v", m, want)
		}
		if m.Created.IsZero() {
			t.Error("Created is zero")
		}
	}
}

func testScheduled(t *testing.T, s Store) {
	s.enqueue(t, outbox.Message{ID: "first", Topic: "t", Key: "k", Delay: 300 * time.Millisecond},
		outbox.Message{ID: "far", Topic: "t", Key: "k", NotBefore: time.Now().Add(time.Hour)})
	got, err := s.Source.Tend(t.Context(), 10, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got.Due != 0 || got.Next <= 0 || got.Next > 300*time.Millisecond {
		t.Errorf("Tend at once: got %+v, want nothing due and to look again within 300ms", got)
	}
	if rows := s.all(t); len(rows) != 0 {
		t.Errorf("read %d rows before they are due, want 0", len(rows))
	}
	until(t, "Tend moves the message", func() bool {
		got, err = s.Source.Tend(t.Context(), 10, 0)
		if err != nil {
			t.Fatal(err)
		}
		return got.Due == 1
	})
	if rows := s.all(t); len(rows) != 1 || rows[0].Message.ID != "first" {
		t.Errorf("read %d rows, want first alone", len(rows))
	}
	if got, err = s.Source.Tend(t.Context(), 10, 0); err != nil || got.Due != 0 || got.Next < 50*time.Minute {
		t.Errorf("Tend again: got %+v, %v, want the other in an hour", got, err)
	}
}
