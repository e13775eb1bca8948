package httpclient_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/backstay-go/backstay/httpclient"
)

func BenchmarkGet(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 1024)) }))
	defer srv.Close()
	for name, rt := range map[string]http.RoundTripper{"bare": &http.Transport{}, "backstay": httpclient.New(&http.Transport{})} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			c := &http.Client{Transport: rt}
			for b.Loop() {
				resp, err := c.Get(srv.URL)
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
