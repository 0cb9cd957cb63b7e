// Package compose tests clusters of containers: the program in an image of its
// own, on networks of Docker's. Where no Docker engine answers, or there is no
// compose, the tests are skipped, with the reason.
package compose
