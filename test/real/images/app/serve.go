package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// serve answers HTTP on a port (8080 unless given), prints one line for each
// request to standard output, and ends with "terminated" at SIGTERM. The second
// argument is how many seconds to wait before it listens, which "waiting" tells of.
//
//	/env             the environment
//	/status/CODE     that status
//	/slow/SECONDS    the answer after so long
//	/redirect?to=URL that way
//	/busy/COUNT      503 to so many requests, and then as below
//	anything else    "hello from HOSTNAME"
//
// On the same port it answers gRPC's health check: it serves.
func serve(args []string) int {
	port, delay := "8080", 0
	if len(args) > 0 {
		port = args[0]
	}
	if len(args) > 1 {
		var err error
		if delay, err = strconv.Atoi(args[1]); err != nil {
			return fail(err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt) //nolint:forbidigo // There is no caller with a context.
	defer stop()
	if delay > 0 {
		fmt.Println("waiting")
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(delay) * time.Second):
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", ":"+port)
	if err != nil {
		return fail(err)
	}
	server := &http.Server{Handler: logged(routes()), ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Println("listening on", port)
	select {
	case <-ctx.Done():
		fmt.Println("terminated")
		return 0
	case err := <-served:
		return fail(err)
	}
}

func logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path, r.Header.Get("X-Cri-Proxy-Delivery-Id"))
		next.ServeHTTP(w, r)
	})
}

func routes() http.Handler {
	mux := http.NewServeMux()
	hello := func(w http.ResponseWriter, _ *http.Request) {
		host, err := os.Hostname()
		if err != nil {
			host = err.Error()
		}
		fmt.Fprintln(w, "hello from", host)
	}
	mux.HandleFunc("/", hello)
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		for _, pair := range os.Environ() {
			fmt.Fprintln(w, pair)
		}
	})
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 100 || code > 999 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.FormValue("to"), http.StatusFound) //nolint:gosec // That is what it is for.
	})
	var requests atomic.Int64
	mux.HandleFunc("/busy/{count}", func(w http.ResponseWriter, r *http.Request) {
		count, err := strconv.ParseInt(r.PathValue("count"), 10, 64)
		if err != nil || requests.Add(1) <= count {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		hello(w, r)
	})
	mux.HandleFunc("POST /grpc.health.v1.Health/Check", healthy)
	mux.HandleFunc("/slow/{seconds}", func(_ http.ResponseWriter, r *http.Request) {
		seconds, err := strconv.Atoi(r.PathValue("seconds"))
		if err != nil {
			return
		}
		select {
		case <-r.Context().Done():
		case <-time.After(time.Duration(seconds) * time.Second):
		}
	})
	return mux
}

// healthy answers with a gRPC message whose first field is SERVING.
func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	if _, err := w.Write([]byte{0, 0, 0, 0, 2, 8, 1}); err != nil {
		return
	}
	w.Header().Set("Grpc-Status", "0")
}
