/* Numbers of the NBD protocol: doc/proto.md of the NBD project.  All integers on
 * the wire are big endian. */
#ifndef BLOCK_NBD_PROTO_H
#define BLOCK_NBD_PROTO_H

#include "base/base.h"

#define NBD_MAGIC	       0x4e42444d41474943ull
#define NBD_OPTION_MAGIC       0x49484156454f5054ull
#define NBD_OPTION_REPLY       0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC      0x25609513u
#define NBD_SIMPLE_MAGIC       0x67446698u
#define NBD_STRUCTURED_MAGIC   0x668e33efu
#define NBD_DEFAULT_PORT       10809
#define NBD_MAX_NAME	       4096u
#define NBD_MAX_PAYLOAD	       ((u32)32 << 20)
#define NBD_CONTEXT_ALLOCATION "base:allocation"

enum { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 }; /* handshake flags of both sides */

enum nbd_option {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT,
	NBD_OPT_LIST,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO,
	NBD_OPT_STRUCTURED_REPLY,
	NBD_OPT_LIST_META_CONTEXT,
	NBD_OPT_SET_META_CONTEXT,
};

#define NBD_REP_ERROR(n) (0x80000000u + (n))
enum nbd_reply {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER,
	NBD_REP_INFO,
	NBD_REP_META_CONTEXT,
};
#define NBD_REP_ERR_UNSUP   NBD_REP_ERROR(1)
#define NBD_REP_ERR_INVALID NBD_REP_ERROR(3)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERROR(6)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERROR(9)

enum nbd_info { NBD_INFO_EXPORT, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE };

enum nbd_export_flag {
	NBD_FLAG_HAS_FLAGS = 1 << 0,
	NBD_FLAG_READ_ONLY = 1 << 1,
	NBD_FLAG_FLUSH = 1 << 2,
	NBD_FLAG_FUA = 1 << 3,
	NBD_FLAG_TRIM = 1 << 5,
	NBD_FLAG_WRITE_ZEROES = 1 << 6,
	NBD_FLAG_DF = 1 << 7,
	NBD_FLAG_MULTI_CONN = 1 << 8,
	NBD_FLAG_CACHE = 1 << 10,
	NBD_FLAG_FAST_ZERO = 1 << 11,
};

enum nbd_command {
	NBD_CMD_READ,
	NBD_CMD_WRITE,
	NBD_CMD_DISC,
	NBD_CMD_FLUSH,
	NBD_CMD_TRIM,
	NBD_CMD_CACHE,
	NBD_CMD_WRITE_ZEROES,
	NBD_CMD_BLOCK_STATUS,
};
enum nbd_command_flag {
	NBD_CMD_FUA = 1,
	NBD_CMD_NO_HOLE = 2,
	NBD_CMD_DF = 4,
	NBD_CMD_REQ_ONE = 8,
	NBD_CMD_FAST_ZERO = 16,
};
#define NBD_REQUEST_BYTES 28

enum nbd_chunk {
	NBD_CHUNK_NONE = 0,
	NBD_CHUNK_DATA = 1,
	NBD_CHUNK_HOLE = 2,
	NBD_CHUNK_STATUS = 5,
	NBD_CHUNK_ERROR = 0x8001,
};
#define NBD_CHUNK_DONE 1 /* flag: the last one of its request */

enum nbd_extent { NBD_HOLE = 1, NBD_ZERO = 2 };

#endif
