// Package cgo stands where a test of Lotus looks for it.
package cgo
