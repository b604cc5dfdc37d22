// A small cAdvisor: the library's own manager and collectors behind /metrics and /healthz.
//
// The library's command lives in a module of its own with many more dependencies; this is what the stack needs of it.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/google/cadvisor/cache/memory"
	"github.com/google/cadvisor/container"
	v2 "github.com/google/cadvisor/info/v2"
	"github.com/google/cadvisor/manager"
	"github.com/google/cadvisor/metrics"
	"github.com/google/cadvisor/utils/sysfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/utils/clock"

	_ "github.com/google/cadvisor/container/containerd/install"
	_ "github.com/google/cadvisor/container/docker/install"
	_ "github.com/google/cadvisor/container/systemd/install"
)

func main() {
	port := flag.Int("port", 8080, "port to listen on")
	flag.Bool("logtostderr", true, "accepted, always so")
	flag.Parse()

	wanted := container.MetricSet{}
	for _, kind := range []container.MetricKind{
		container.CpuUsageMetrics, container.MemoryUsageMetrics, container.NetworkUsageMetrics,
		container.DiskIOMetrics, container.DiskUsageMetrics, container.CpuLoadMetrics,
		container.ProcessMetrics, container.OOMMetrics, container.AppMetrics,
	} {
		wanted[kind] = struct{}{}
	}
	m, err := manager.New(memory.New(2*time.Minute, nil), sysfs.NewRealSysFs(),
		manager.HousekeepingConfigFlags, wanted, http.DefaultClient,
		nil, nil, "", 0)
	if err != nil {
		log.Fatalf("cadvisor: making the manager: %v", err)
	}
	if err := m.Start(); err != nil {
		log.Fatalf("cadvisor: starting the manager: %v", err)
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(
		metrics.NewPrometheusCollector(m, metrics.DefaultContainerLabels, wanted, clock.RealClock{},
			v2.RequestOptions{IdType: v2.TypeName, Count: 1, Recursive: true}),
		metrics.NewPrometheusMachineCollector(m, wanted),
	)
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "cAdvisor: see /metrics and /healthz\n")
	})
	log.Printf("cadvisor: listening on :%d", *port)
	log.Fatal(http.ListenAndServe(fmt.Sprintf(":%d", *port), nil))
}
