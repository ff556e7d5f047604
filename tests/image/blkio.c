/* blkio: try an image from a script, in the manner of qemu-io.
 *
 *   blkio [-f FORMAT] [-k PASSPHRASE] [-d] [-r] [-n] FILE COMMAND...
 *	each COMMAND is one argument
 *
 *   create SIZE [version=2] [cluster=N] [refcount=N] [lazy] [prealloc] [zstd]
 *          [backing=NAME] [backing_format=F]       a qcow2 image, then opened
 *   write [-P BYTE] OFFSET BYTES     read [-P BYTE] OFFSET BYTES (verifies)
 *   zero [-u] OFFSET BYTES           discard OFFSET BYTES
 *   flush     resize BYTES           map      check [leaks|all]
 *   pack [-P BYTE] OFFSET BYTES      write compressed clusters
 *   fill FILE                        the bytes of FILE from 0 on, compressed
 *   same FILE                        do they read the same?
 *   machine NAME BYTES               a snapshot with VM state of whole clusters
 *   random SEED COUNT MAX_BYTES      writes at random places, 512 aligned
 *   crash     end at once, nothing flushed or closed
 *
 * Exit status 1 and a line on stderr when a command fails.  -d: discards reach the
 * host, -r: read-only, -n: without the backing file. */
#include "base/io.h"
#include "base/loop.h"
#include "block/driver.h"
#include "block/file.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"
#include "block/unlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define MAX_WORDS 12
#define CHUNK	  (1 * MiB)

struct blkio {
	const char *file, *format, *passphrase;
	bool unmap, readonly, no_backing;
	struct image *img;
	char *words[MAX_WORDS + 1];
	int n;
	char **commands;
	int status;
};

static u64 number(const char *text)
{
	char *end = NULL;
	u64 x = text ? strtoull(text, &end, 0) : 0;

	switch (end ? *end : 0) {
	case 'k': return x << 10;
	case 'M': return x << 20;
	case 'G': return x << 30;
	case 'T': return x << 40;
	default: return x;
	}
}

static bool starts(const char *word, const char *with, const char **rest)
{
	size_t n = strlen(with);

	*rest = word + n;
	return !strncmp(word, with, n);
}

/* The same for all images of a chain. */
static int answer(struct fiber *f, void *arg, const struct unlock_question *q, struct key *out,
		  struct error *err)
{
	const struct blkio *b = arg;

	if (!b->passphrase || q->tries)
		return -ENOTTY;
	return key_set(out, b->passphrase, strlen(b->passphrase));
}

static int open_image(struct fiber *f, struct blkio *b, bool check, struct error *err)
{
	const struct unlock_policy unlock = {.ask = answer, .arg = b};
	struct open_policy policy = {.writable = !b->readonly,
				     .discard = b->unmap,
				     .no_backing = b->no_backing,
				     .format = b->format,
				     .unlock = &unlock,
				     .check_only = check};

	return b->img ? 0 : image_open(f, &b->img, b->file, &policy, err);
}

static int do_create(struct fiber *f, struct blkio *b, struct error *err)
{
	struct qcow2_create_options opt = {.bytes = number(b->words[1])};
	struct open_policy policy = {.writable = true};
	struct image *file;
	const char *rest;
	int ret;

	for (int i = 2; i < b->n; i++) {
		if (starts(b->words[i], "version=", &rest))
			opt.version = (u32)number(rest);
		else if (starts(b->words[i], "cluster=", &rest))
			opt.cluster_bytes = (u32)number(rest);
		else if (starts(b->words[i], "refcount=", &rest))
			opt.refcount_bits = (u32)number(rest);
		else if (starts(b->words[i], "backing=", &rest))
			opt.backing_file = rest;
		else if (starts(b->words[i], "backing_format=", &rest))
			opt.backing_format = rest;
		else if (starts(b->words[i], "zstd", &rest))
			opt.compression_type = 1;
		else if (starts(b->words[i], "lazy", &rest))
			opt.lazy_refcounts = true;
		else if (starts(b->words[i], "prealloc", &rest))
			opt.preallocation = PREALLOC_METADATA;
		else
			return err_set(err, -EINVAL, "create: what is '%s'?", b->words[i]);
	}
	ret = file_create(f, &file, b->file, 0, &policy, err);
	if (ret < 0)
		return ret;
	ret = qcow2_create(f, file, &opt, err);
	image_close(f, file);
	return ret;
}

/* pattern < 0: read without looking. */
static int transfer(struct fiber *f, struct blkio *b, int pattern, u64 goff, u64 bytes, bool write)
{
	AUTO_FREE u8 *buf = try_alloc(CHUNK);
	int ret = buf ? 0 : -ENOMEM;

	for (u64 part; bytes && ret == 0; goff += part, bytes -= part) {
		part = MIN(bytes, CHUNK);
		memset(buf, pattern, part);
		ret = write ? image_pwrite(f, b->img, goff, buf, part)
			    : image_pread(f, b->img, goff, buf, part);
		for (u64 i = 0; !write && pattern >= 0 && ret == 0 && i < part; i++)
			if (buf[i] != (u8)pattern) {
				fprintf(stderr, "blkio: byte %llu is %#x, expected %#x\n",
					(unsigned long long)(goff + i), buf[i], (u8)pattern);
				ret = -EILSEQ;
			}
	}
	return ret;
}

static int do_pack(struct fiber *f, struct blkio *b, int pattern, u64 goff, u64 bytes)
{
	AUTO_FREE u8 *buf = try_alloc(bytes);
	struct iovec iov = {buf, bytes};

	if (!buf)
		return -ENOMEM;
	memset(buf, pattern, bytes);
	return qcow2_write_compressed(f, b->img, goff, &iov, 1);
}

/* Compare with a file, or fill from it. */
static int with_file(struct fiber *f, struct blkio *b, bool fill)
{
	int fd = b->n > 1 ? sys_open(b->words[1], O_RDONLY, 0) : -EINVAL, ret = 0;
	AUTO_FREE u8 *buf = try_alloc(2 * CHUNK), *got = try_alloc(2 * CHUNK);

	if (fd < 0 || !buf || !got)
		return fd < 0 ? fd : -ENOMEM;
	for (u64 goff = 0; ret == 0 && goff < b->img->bytes; goff += 2 * CHUNK) {
		u64 bytes = MIN(2 * CHUNK, b->img->bytes - goff);
		struct iovec iov = {buf, bytes};
		s64 n = sys_pread(fd, buf, bytes, goff);

		if (n < 0)
			ret = (int)n;
		else if (fill)
			ret = qcow2_write_compressed(f, b->img, goff, &iov, 1);
		else
			ret = image_pread(f, b->img, goff, got, bytes);
		if (ret == 0 && !fill && memcmp(buf, got, bytes))
			ret = -EILSEQ;
	}
	sys_close(fd);
	return ret;
}

static int do_random(struct fiber *f, struct blkio *b)
{
	u64 seed = number(b->words[1]) * 2654435761u + 1, max = number(b->words[3]);
	int ret = 0;

	for (u64 i = number(b->words[2]); i && ret == 0; i--) {
		u64 bytes, goff;

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		bytes = ((seed >> 33) % (max / 512) + 1) * 512;
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		goff = align_down((seed >> 16) % (b->img->bytes - bytes + 1), 512);
		ret = transfer(f, b, (int)(seed >> 40 & 0xff), goff, bytes, true);
	}
	return ret;
}

static int do_map(struct fiber *f, struct blkio *b)
{
	struct map_extent e;

	for (u64 goff = 0; goff < b->img->bytes; goff += e.bytes) {
		int ret = image_map(f, b->img, goff, b->img->bytes - goff, &e);

		if (ret < 0)
			return ret;
		printf("%llu %llu%s%s%s", (unsigned long long)goff, (unsigned long long)e.bytes,
		       e.kind & MAP_ALLOC ? "" : " hole", e.kind & MAP_ZERO ? " zero" : "",
		       e.kind & MAP_DATA ? " data" : "");
		if (e.kind & MAP_HOFF)
			printf(" at %llu", (unsigned long long)e.hoff);
		printf("\n");
	}
	return 0;
}

static void print_line(void *arg, const char *text)
{
	puts(text);
}

static int do_check(struct fiber *f, struct blkio *b, struct error *err)
{
	bool all = b->n > 1 && !strcmp(b->words[1], "all");
	struct check_request req = {.fix_leaks = b->n > 1, .fix_errors = all, .line = print_line};
	const struct check_result *r = &req.result;
	int ret = b->img->driver->check ? b->img->driver->check(f, b->img, &req, err) : -ENOTSUP;

	printf("corruptions %llu leaks %llu errors %llu fixed %llu+%llu clusters %llu of %llu\n",
	       (unsigned long long)r->corruptions, (unsigned long long)r->leaks,
	       (unsigned long long)r->check_errors, (unsigned long long)r->corruptions_fixed,
	       (unsigned long long)r->leaks_fixed, (unsigned long long)r->allocated_clusters,
	       (unsigned long long)r->total_clusters);
	if (ret < 0)
		return ret;
	if (r->corruptions || r->check_errors)
		return err_set(err, -EUCLEAN, "corruptions");
	return r->leaks ? err_set(err, -EUCLEAN, "leaks") : 0;
}

static int request(struct fiber *f, struct blkio *b, struct error *err)
{
	int option = 1, pattern = -1;
	const char *verb = b->words[0];
	u64 goff, bytes;
	bool unmap = false;

	if (b->n > option + 1 && !strcmp(b->words[option], "-P")) {
		pattern = (int)number(b->words[option + 1]);
		option += 2;
	} else if (b->n > option && !strcmp(b->words[option], "-u")) {
		unmap = true;
		option++;
	}
	if (b->n < option + 2)
		return err_set(err, -EINVAL, "%s: OFFSET and BYTES are missing", verb);
	goff = number(b->words[option]);
	bytes = number(b->words[option + 1]);
	if (!strcmp(verb, "write"))
		return transfer(f, b, pattern < 0 ? 0xcd : pattern, goff, bytes, true);
	if (!strcmp(verb, "pack"))
		return do_pack(f, b, pattern < 0 ? 0xcd : pattern, goff, bytes);
	if (!strcmp(verb, "read"))
		return transfer(f, b, pattern, goff, bytes, false);
	if (!strcmp(verb, "zero"))
		return image_zero(f, b->img, goff, bytes, unmap ? ZERO_MAY_UNMAP : 0);
	if (!strcmp(verb, "discard"))
		return image_discard(f, b->img, goff, bytes);
	return err_set(err, -EINVAL, "no such command");
}

/* As if a machine had been saved: each cluster of its state is another. */
static int do_machine(struct fiber *f, struct blkio *b)
{
	struct qcow2_new_snapshot s = {
		.name = b->words[1], .date_sec = 1, .icount = QCOW2_NO_ICOUNT};
	struct qcow2_info info;
	AUTO_FREE u8 *buf = NULL;
	int ret = 0;

	if (b->n != 3 || b->img->driver != &qcow2_driver)
		return -EINVAL;
	qcow2_get_info(b->img, &info);
	buf = xalloc(info.cluster_bytes);
	for (; s.vm_state_bytes < number(b->words[2]) && ret == 0;
	     s.vm_state_bytes += info.cluster_bytes) {
		struct iovec iov = {buf, info.cluster_bytes};

		memset(buf, (int)(s.vm_state_bytes / info.cluster_bytes + 1), iov.iov_len);
		ret = qcow2_vmstate_write(f, b->img, s.vm_state_bytes, &iov, 1);
	}
	return ret < 0 ? ret : qcow2_snapshot_create(f, b->img, &s);
}

static int command(struct fiber *f, struct blkio *b, struct error *err)
{
	const char *verb = b->words[0];
	int ret;

	if (!strcmp(verb, "crash"))
		_exit(0);
	if (!strcmp(verb, "create"))
		return do_create(f, b, err);
	ret = open_image(f, b, !strcmp(verb, "check"), err);
	if (ret < 0)
		return ret;
	if (!strcmp(verb, "flush"))
		return image_flush(f, b->img);
	if (!strcmp(verb, "map"))
		return do_map(f, b);
	if (!strcmp(verb, "check"))
		return do_check(f, b, err);
	if (!strcmp(verb, "resize"))
		return image_resize(f, b->img, number(b->words[1]), err);
	if (!strcmp(verb, "fill") || !strcmp(verb, "same"))
		return with_file(f, b, verb[0] == 'f');
	if (!strcmp(verb, "machine"))
		return do_machine(f, b);
	if (!strcmp(verb, "random"))
		return b->n == 4 ? do_random(f, b) : -EINVAL;
	return request(f, b, err);
}

static void blkio_main(struct fiber *f, void *arg)
{
	struct blkio *b = arg;
	struct error err = {0};
	int ret = 0;

	for (char **c = b->commands; *c && ret == 0; c++) {
		AUTO_FREE char *text = xstrdup(*c);
		char *save = NULL;

		b->n = 0;
		for (char *w = strtok_r(text, " ", &save); w && b->n < MAX_WORDS;
		     w = strtok_r(NULL, " ", &save))
			b->words[b->n++] = w;
		b->words[b->n] = NULL;
		ret = b->n ? command(f, b, &err) : 0;
		if (ret < 0)
			fprintf(stderr, "blkio: %s: %s\n", *c,
				err.code ? err.text : strerror(-ret));
	}
	b->status = ret < 0;
	ret = image_close(f, b->img);
	if (ret < 0) {
		fprintf(stderr, "blkio: close: %s\n", strerror(-ret));
		b->status = 1;
	}
}

int main(int argc, char **argv)
{
	struct blkio b = {0};
	struct loop *loop;
	struct error err;
	int opt;

	while ((opt = getopt(argc, argv, "df:k:rn")) != -1) {
		switch (opt) {
		case 'd': b.unmap = true; break;
		case 'f': b.format = optarg; break;
		case 'k': b.passphrase = optarg; break;
		case 'r': b.readonly = true; break;
		case 'n': b.no_backing = true; break;
		default: return 1;
		}
	}
	if (optind >= argc) {
		fprintf(stderr, "usage: blkio [-f FORMAT] [-k PASSPHRASE] [-d] [-r] [-n] FILE "
				"COMMAND...\n");
		return 1;
	}
	b.file = argv[optind];
	b.commands = argv + optind + 1;
	if (loop_new(&loop, "blkio", LOOP_AUTO, &err) < 0) {
		fprintf(stderr, "blkio: %s\n", err.text);
		return 1;
	}
	if (loop_run_fiber(loop, blkio_main, &b) < 0)
		b.status = 1;
	loop_free(loop);
	return b.status;
}
