/* Properties that all disk devices have, beside their drive. */
#ifndef DEVICES_DISK_H
#define DEVICES_DISK_H

#include "devices/device.h"

#define DISK_SIZE_AUTO UINT32_MAX

struct disk_props {
	struct blk *blk;			      /* [const] NULL: not given */
	char *serial, *werror, *rerror, *write_cache; /* [const] */
	u32 logical_bytes, physical_bytes;	      /* [const] blocks */
	u32 min_io_bytes, opt_io_bytes;		      /* [const] 0: nothing to tell */
	u32 granularity;			      /* [const] of discards; DISK_SIZE_AUTO */
	u32 bootindex;				      /* [const] read by who makes the boot order */
	bool share_rw;				      /* [const] read by who opens the drive */
};

#define DISK_PROPS(type, member, physical)                                                         \
	PROP(type, member.blk, "drive", PROP_KIND_BLK, NULL, "id of the drive"),                   \
		PROP(type, member.serial, "serial", PROP_KIND_STR, NULL, "up to 20 characters"),   \
		PROP(type, member.werror, "werror", PROP_KIND_STR, "auto",                         \
		     "Error handling policy, report/ignore/enospc/stop/auto"),                     \
		PROP(type, member.rerror, "rerror", PROP_KIND_STR, "auto",                         \
		     "Error handling policy, report/ignore/enospc/stop/auto"),                     \
		PROP(type, member.write_cache, "write-cache", PROP_KIND_STR, "auto",               \
		     "volatile cache shown to the driver: on, off, auto"),                         \
		PROP(type, member.logical_bytes, "logical_block_size", PROP_KIND_U32, "512",       \
		     "A power of two between 512 B and 2 MiB"),                                    \
		PROP(type, member.physical_bytes, "physical_block_size", PROP_KIND_U32, physical,  \
		     "A power of two between 512 B and 2 MiB"),                                    \
		PROP(type, member.min_io_bytes, "min_io_size", PROP_KIND_U32, "0",                 \
		     "requests best are multiples of it"),                                         \
		PROP(type, member.opt_io_bytes, "opt_io_size", PROP_KIND_U32, "0",                 \
		     "best size of a request"),                                                    \
		PROP(type, member.granularity, "discard_granularity", PROP_KIND_U32, "0xffffffff", \
		     "what a discard may begin and end at"),                                       \
		PROP(type, member.share_rw, "share-rw", PROP_KIND_BOOL, "off",                     \
		     "others may write to the image, too"),                                        \
		PROP(type, member.bootindex, "bootindex", PROP_KIND_U32, "0xffffffff",             \
		     "place in the boot order")

/* In a device's init: refuses what cannot be, in the reference's words, and tells the
 * drive what to do about errors. */
int disk_props_apply(const struct disk_props *p, const struct device *dev, struct error *err);

#endif
