// Package alerts tests docs/alerts.yaml and docs/grafana.json with Prometheus' own parser and engine: every name and label in them is in the telemetry
// model, and every alert fires when what it is for happens, and not when all is well. It is a module of its own, outside the workspace, since the
// requirements of Prometheus would raise everybody else's.
package alerts
