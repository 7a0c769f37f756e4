// Package serviceenv makes the environment variables by which containers find
// the Services of their namespace, as the kubelet makes them: the same
// Services, names and values.
//
// The Services come from the API server, of which only what the variables need
// is kept, or from a file. Both are followed.
//
// Guaranteed: a variable that a container has already is not made again; the
// same Services and the same container lead to the same variables in the same
// order; a source that is away or broken delays nothing but the containers that
// are to have variables, and only until it was read once. After that, what was
// read last stays in use.
//
// Not guaranteed: that the variables are as the Services are at this moment; that
// a container which runs sees a change; any knowledge of enableServiceLinks, which
// the kubelet tells nobody.
package serviceenv
