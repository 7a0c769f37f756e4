// Package configs is the configuration of cri-proxy: the types, the defaults, the strict reader and the writer.
//
// It guarantees that a configuration it returns is complete (every default filled in, endpoints normalised) and consistent, and
// that a file with mistakes is answered with all of them at once, in file order, each with the place of the key that is wrong.
// A syntax error is the exception: behind it nothing can be read, so it stands alone. And where one element of a list has a wrong
// type, the types and keys of the other elements are checked, but not what their values mean.
//
// It looks at text only. Whether a socket exists, a file can be read or a backend knows a runtime is for those who use the values.
package configs
