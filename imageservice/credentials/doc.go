// Package credentials finds the registry credentials for an image: in docker
// config.json files and by the kubelet's credential provider plugins.
//
// Guaranteed: the same credentials in the same order as the kubelet finds in
// the same files (pkg/credentialprovider of Kubernetes 1.36). An image's
// repository has its full name, as docker.io/library/busybox, without tag and
// digest. A key matches if its port is the same, none included, its host has as
// many parts and each part matches as a glob, and its path is a plain prefix.
// All matches count, by keys in reverse string order, so that a longer path
// comes first and a wildcard after a letter; only if there is none, and the
// image is Docker Hub's, the key index.docker.io does. Every file is matched by
// itself, in the order in which the files are named, and then what all plugins
// answered, together. Where several entries mean one key, those of an earlier
// plugin come first and those of one file by their spelling; the kubelet leaves
// that second order to chance.
//
// Plugins speak credentialprovider.kubelet.k8s.io/v1. A plugin that fails is
// warned about and left out, as the kubelet does: if no other source matches,
// the image is pulled without credentials. Answers are kept for as long as they
// say, in memory only, and never shared between two keyrings. A plugin that
// takes over a minute, or that nobody waits for any more, is killed with its
// process group.
//
// A file is read again when it changed. One that became invalid is warned about
// and its last good content kept; one that is gone is an error, because whoever
// removes credentials wants them out of use.
//
// Not guaranteed: credHelpers and credsStore, which the kubelet passes over in
// silence, are refused; tokenAttributes of a plugin are too, since there are no
// service account tokens here. A child of a plugin that left its process group
// is not killed, but not waited for either.
package credentials
