/* Frames that pass a backend, in a file: see dump.h.
 *
 * The format is libpcap's (IETF draft-ietf-opsawg-pcap), with microseconds, in the byte
 * order of the host.  A frame whose checksums are left to somebody else is written as it
 * passes, without them.  Thread: main; the file's. */
#include "devices/net/dump.h"

#include "base/io.h"
#include "base/log.h"
#include "devices/net/checksum.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>

#define MAGIC	      0xa1b2c3d4u
#define LINK_ETHERNET 1

struct net_dump {
	struct list link;
	char *id, *file;
	u32 max_bytes;
	enum net_dump_way way;
	bool off;
	int fd; /* -1: it could not be written to any more */
};

struct file_header {
	u32 magic;
	u16 major, minor;
	s32 zone;
	u32 accuracy, max_bytes, link_type;
};

struct frame_header {
	u32 seconds, microseconds, kept, bytes;
};

int net_dump_add(struct net_end *end, const struct net_dump_options *opt, struct error *err)
{
	const struct file_header header = {.magic = MAGIC,
					   .major = 2,
					   .minor = 4,
					   .max_bytes = opt->max_bytes,
					   .link_type = LINK_ETHERNET};
	struct net_dump *d;
	int fd = sys_open(opt->file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	s64 ret;

	if (fd < 0)
		return err_set_errno(err, fd, "net dump: can't open %s", opt->file);
	ret = sys_write(fd, &header, sizeof(header));
	if (ret != (s64)sizeof(header)) {
		sys_close(fd);
		return err_set_errno(err, ret < 0 ? (int)ret : -EIO, "net dump: can't write to %s",
				     opt->file);
	}
	d = xnew(struct net_dump);
	d->id = xstrdup(opt->id);
	d->file = xstrdup(opt->file);
	d->max_bytes = opt->max_bytes;
	d->way = opt->way;
	d->off = opt->off;
	d->fd = fd;
	list_append(&end->dumps, &d->link);
	return 0;
}

void net_dump_free_all(struct net_end *end)
{
	struct list *item;

	while ((item = list_pop(&end->dumps))) {
		struct net_dump *d = list_entry(item, struct net_dump, link);

		if (d->fd >= 0)
			sys_close(d->fd);
		free(d->id);
		free(d->file);
		free(d);
	}
}

/* One write a frame, so that what is there is whole whenever somebody looks. */
static void write_frame(struct net_dump *d, const struct net_frame *f)
{
	u32 kept = MIN(f->bytes, d->max_bytes);
	AUTO_FREE u8 *data = try_alloc(sizeof(struct frame_header) + kept);
	struct frame_header header = {.kept = kept, .bytes = f->bytes};
	struct timespec now;
	size_t bytes = sizeof(header) + kept;
	s64 ret;

	if (!data)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	header.seconds = (u32)now.tv_sec;
	header.microseconds = (u32)(now.tv_nsec / 1000);
	memcpy(data, &header, sizeof(header));
	net_frame_copy(f, 0, data + sizeof(header), kept);
	ret = sys_write(d->fd, data, bytes);
	if (ret == (s64)bytes)
		return;
	log_error("net dump: can't write to %s any more", d->file);
	sys_close(d->fd);
	d->fd = -1;
}

void net_dump_frame(struct net_end *end, const struct net_frame *f, enum net_dump_way way)
{
	list_for_each (pos, &end->dumps) {
		struct net_dump *d = list_entry(pos, struct net_dump, link);

		if (d->way & way && !d->off && d->fd >= 0)
			write_frame(d, f);
	}
}

void net_dump_print(const struct net_end *end, void (*line)(void *arg, const char *text), void *arg)
{
	static const char *const ways[] = {
		[NET_DUMP_RX] = "rx", [NET_DUMP_TX] = "tx", [NET_DUMP_ALL] = "all"};

	list_for_each (pos, &end->dumps) {
		const struct net_dump *d = list_entry(pos, struct net_dump, link);
		AUTO_FREE char *text =
			xasprintf("  - %s: type=filter-dump,file=%s,maxlen=%u,status=%s,netdev=%s,"
				  "queue=%s\n",
				  d->id, d->file, d->max_bytes, d->off ? "off" : "on", end->name,
				  ways[d->way]);

		line(arg, text);
	}
}
