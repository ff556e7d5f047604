/* libnbd, loaded when the first name asks for it.
 *
 * It brings gnutls, libxml2 and ICU with it: linked to the programs, they took two
 * thirds of the time in which a command on a small image was done. */
#ifndef BLOCK_NBD_LIB_H
#define BLOCK_NBD_LIB_H

#include "base/error.h"

#include <libnbd.h>

#define NBD_LIB_FUNCTIONS(X)                                                                       \
	X(add_meta_context)                                                                        \
	X(aio_block_status)                                                                        \
	X(aio_flush)                                                                               \
	X(aio_get_direction)                                                                       \
	X(aio_get_fd)                                                                              \
	X(aio_is_closed)                                                                           \
	X(aio_is_dead)                                                                             \
	X(aio_is_ready)                                                                            \
	X(aio_notify_read)                                                                         \
	X(aio_notify_write)                                                                        \
	X(aio_pread)                                                                               \
	X(aio_pwrite)                                                                              \
	X(aio_trim)                                                                                \
	X(aio_zero)                                                                                \
	X(can_fast_zero)                                                                           \
	X(can_flush)                                                                               \
	X(can_meta_context)                                                                        \
	X(can_trim)                                                                                \
	X(can_zero)                                                                                \
	X(close)                                                                                   \
	X(connect_tcp)                                                                             \
	X(connect_unix)                                                                            \
	X(connect_uri)                                                                             \
	X(create)                                                                                  \
	X(get_block_size)                                                                          \
	X(get_errno)                                                                               \
	X(get_error)                                                                               \
	X(get_size)                                                                                \
	X(is_read_only)                                                                            \
	X(set_export_name)                                                                         \
	X(set_uri_allow_tls)                                                                       \
	X(shutdown)

/* Its functions, without their prefix. */
struct nbd_lib {
#define NBD_LIB_FIELD(name) __typeof__(nbd_##name) *name;
	NBD_LIB_FUNCTIONS(NBD_LIB_FIELD)
#undef NBD_LIB_FIELD
};
/* -ENOENT: it is not installed, or too old. */
int nbd_lib_load(struct nbd_lib *lib, struct error *err);

#endif
