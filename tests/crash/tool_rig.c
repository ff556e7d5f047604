/* See tool_rig.h. */
#include "tests/crash/tool_rig.h"

#include "base/io.h"
#include "block/driver.h"
#include "block/file_internal.h"
#include "block/unlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECTOR	   512u
#define SHOW_EVERY 61u /* cuts: to the reference */

int cowimg_main(int argc, char **argv);
int __real_file_open_path(struct fiber *f, struct image **out, const char *path,
			  const struct open_policy *policy, struct error *err);
int __wrap_file_open_path(struct fiber *f, struct image **out, const char *path,
			  const struct open_policy *policy, struct error *err);

/* --- recording ---------------------------------------------------------------------- */

/* The hook of the linker has no argument of ours. */
static struct rig **current(void)
{
	static struct rig *r;

	return &r;
}

u32 rig_index(const struct rig *r, const char *file)
{
	const char *slash = strrchr(file, '/');

	for (u32 i = 0; i < r->n; i++)
		if (!strcmp(r->s->files[i], slash ? slash + 1 : file))
			return i;
	return UINT32_MAX;
}

int __wrap_file_open_path(struct fiber *f, struct image **out, const char *path,
			  const struct open_policy *policy, struct error *err)
{
	struct rig *r = *current();
	u32 i = r ? rig_index(r, path) : UINT32_MAX;
	int ret;

	if (i != UINT32_MAX && r->judging) {
		*out = mem_image_new(fiber_loop(f), &r->disks[i]);
		return 0;
	}
	ret = __real_file_open_path(f, out, path, policy, err);
	if (ret == 0 && i != UINT32_MAX && r->recording)
		ret = filter_record_file(out, *out, &r->log, i);
	return ret;
}

void rig_run(struct rig *r, const char *line)
{
	AUTO_FREE char *text = xstrdup(line);
	char *argv[32] = {(char *)(uintptr_t) "cowimg"}; /* kept, for the log */
	char *words[32], *rest = text, *word;
	int argc = 1, status;

	while ((word = strsep(&rest, " "))) {
		char *at = strchr(word, '@');

		assert_true(argc < 31);
		if (at)
			word = xasprintf("%.*s%s/%s", (int)(at - word), word, r->dir, at + 1);
		else
			word = xstrdup(word);
		words[argc] = argv[argc] = word;
		argc++;
	}
	optind = 0;
	status = cowimg_main(argc, argv);
	while (--argc)
		free(words[argc]);
	if (status)
		fail_msg("cowimg %s: status %d", line, status);
}

void rig_create(struct rig *r, const char *options, const char *file)
{
	const struct scenario *s = r->s;
	AUTO_FREE char *line =
		xasprintf("create -q -f qcow2 -o "
			  "cluster_size=%u,lazy_refcounts=%s,refcount_bits=%u%s @%s %llu",
			  s->cluster_bytes, s->lazy ? "on" : "off",
			  s->refcount_bits ? s->refcount_bits : 16, options, file,
			  (unsigned long long)s->bytes);

	rig_run(r, line);
}

/* --- files in the folder --------------------------------------------------------------- */

static void read_disk(const struct rig *r, const char *file, struct mem_disk *d)
{
	AUTO_FREE char *path = xasprintf("%s/%s", r->dir, file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t bytes = lseek(fd, 0, SEEK_END);

	assert_true(fd >= 0 && bytes >= 0);
	*d = (struct mem_disk){.bytes = (u64)bytes, .room = (u64)bytes};
	d->data = xalloc(MAX(d->bytes, (u64)1));
	assert_int_equal(sys_pread(fd, d->data, d->bytes, 0), bytes);
	close(fd);
}

static void write_disk(const struct rig *r, const char *file, const struct mem_disk *d)
{
	AUTO_FREE char *path = xasprintf("%s/cut/%s", r->dir, file);
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(sys_pwrite(fd, d->data, d->bytes, 0), d->bytes);
	close(fd);
}

struct rig *rig_new(const struct scenario *s)
{
	struct rig *r = xnew(struct rig);
	AUTO_FREE char *cut = NULL;

	r->s = s;
	r->seed = s->seed | 1;
	r->now = xalloc(s->bytes);
	while (s->files[r->n])
		r->n++;
	strcpy(r->dir, "/tmp/crash_tool_XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	cut = xasprintf("%s/cut", r->dir);
	assert_int_equal(mkdir(cut, 0700), 0);
	*current() = r;
	return r;
}

void rig_free(struct rig *r)
{
	AUTO_FREE char *line = xasprintf("rm -r %s", r->dir);

	*current() = NULL;
	assert_int_equal(system(line), 0);
	for (u32 i = 0; i < r->n; i++) {
		mem_disk_fini(&r->start[i]);
		free(r->old[i]);
	}
	record_log_fini(&r->log);
	free(r->now);
	free(r);
}

/* --- on the loop: before the run ------------------------------------------------------- */

void rig_fill(struct fiber *f, struct rig *r, const char *file)
{
	struct open_policy policy = {.writable = true};
	u64 sectors = r->s->bytes / SECTOR;
	AUTO_FREE u8 *buf = xalloc(r->s->bytes / 8);
	struct image *img = rig_open(f, r, file, &policy);

	for (u64 at = next_random(&r->seed) % 64; at < sectors;) {
		u64 n = MIN(next_random(&r->seed) % (sectors / 16) + 1, sectors - at);

		memset(buf, ++r->stamp, n * SECTOR);
		assert_int_equal(image_pwrite(f, img, at * SECTOR, buf, n * SECTOR), 0);
		at += n + next_random(&r->seed) % (sectors / 8);
	}
	assert_int_equal(image_close(f, img), 0);
}

void rig_load(struct rig *r)
{
	for (u32 i = 0; i < r->n; i++)
		read_disk(r, r->s->files[i], &r->start[i]);
	r->disks = r->start;
}

void rig_note(struct fiber *f, struct rig *r)
{
	rig_load(r);
	for (u32 i = 0; i < r->n; i++) {
		rig_read(f, r, r->s->files[i], NULL);
		r->old[i] = xalloc(r->s->bytes);
		memcpy(r->old[i], r->now, r->s->bytes);
	}
}

/* --- on the loop: after a cut ----------------------------------------------------------- */

struct image *rig_open(struct fiber *f, struct rig *r, const char *file,
		       const struct open_policy *policy)
{
	static const struct unlock_policy locked = {.when = UNLOCK_NEVER};
	AUTO_FREE char *path = xasprintf("%s/%s", r->dir, file);
	struct open_policy how = *policy;
	struct error err = {0};
	struct image *img;

	how.no_backing |= how.check_only;
	how.format = r->s->format ? r->s->format : "qcow2";
	if (!how.unlock)
		how.unlock = r->s->unlock ? r->s->unlock : &locked;
	if (image_open(f, &img, path, &how, &err))
		fail_msg("%s: cut after event %zu of %zu: %s", r->s->name, r->events, r->log.n,
			 err.text);
	return img;
}

void rig_read(struct fiber *f, struct rig *r, const char *file, const char *snapshot)
{
	struct open_policy policy = {.snapshot = snapshot};
	struct image *img = rig_open(f, r, file, &policy);

	assert_int_equal(img->bytes, r->s->bytes);
	assert_int_equal(image_pread(f, img, 0, r->now, r->s->bytes), 0);
	assert_int_equal(image_close(f, img), 0);
}

void rig_expect(const struct rig *r, const u8 *a, const u8 *b, const char *what, size_t events)
{
	for (u64 at = 0; at < r->s->bytes; at += SECTOR)
		if (memcmp(r->now + at, a + at, SECTOR) &&
		    (!b || memcmp(r->now + at, b + at, SECTOR)))
			fail_msg("%s: cut after event %zu of %zu: %s: sector %llu holds %02x, not "
				 "%02x or %02x",
				 r->s->name, events, r->log.n, what,
				 (unsigned long long)(at / SECTOR), r->now[at], a[at],
				 b ? b[at] : a[at]);
}

void rig_check(struct fiber *f, struct rig *r, const char *file, size_t events)
{
	struct open_policy policy = {.check_only = true}, repair = {.writable = true};
	struct check_request req = {0};
	struct error err = {0};
	struct image *img;

	repair.no_backing = true;
	if (r->s->lazy)
		assert_int_equal(image_close(f, rig_open(f, r, file, &repair)), 0);
	img = rig_open(f, r, file, &policy);
	if (img->driver->check(f, img, &req, &err) < 0)
		fail_msg("check: %s", err.text);
	if (req.result.corruptions || req.result.check_errors)
		fail_msg("%s: cut after event %zu of %zu: %llu corruptions of %s", r->s->name,
			 events, r->log.n, (unsigned long long)req.result.corruptions, file);
	image_close(f, img);
}

/* The reference's opinion: the end status of its check. */
static int ask(const struct rig *r, const char *file, const char *passphrase)
{
	AUTO_FREE char *line = xasprintf(
		"cd %s/cut && qemu-img check -U -q --object secret,id=s,data=%s --image-opts "
		"driver=qcow2,%sfile.filename=%s >/dev/null 2>&1",
		r->dir, passphrase ? passphrase : "none", passphrase ? "encrypt.key-secret=s," : "",
		file);
	int status = system(line);

	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void show(struct rig *r, const char *file, size_t events)
{
	int status = ask(r, file, r->s->passphrases[0]);

	if (status == 1 && r->s->passphrases[1])
		status = ask(r, file, r->s->passphrases[1]);
	if (status != 0 && status != 3)
		fail_msg("%s: cut after event %zu: qemu-img check of %s ends with status %d",
			 r->s->name, events, file, status);
	r->shown++;
}

static void judge(struct fiber *f, struct mem_disk *disks, size_t events, void *arg)
{
	struct rig *r = arg;
	u32 n = r->s->format ? 0 : r->s->images ? r->s->images : r->n;
	bool reference = n && r->judged % (n * SHOW_EVERY) == 0;

	r->disks = disks;
	r->events = events;
	r->judged++;
	for (u32 i = 0; i < n; i++)
		rig_check(f, r, r->s->files[i], events);
	for (u32 i = 0; reference && i < r->n; i++)
		write_disk(r, r->s->files[i], &disks[i]);
	for (u32 i = 0; reference && i < n; i++)
		show(r, r->s->files[i], events);
	r->s->judge(f, r, events);
}

/* --- all of it --------------------------------------------------------------------------- */

/* Nothing lost: that is what lies in the folder.  The record is complete. */
static void compare_with_folder(struct fiber *f, struct mem_disk *disks, size_t events, void *arg)
{
	struct rig *r = arg;

	for (u32 i = 0; events == r->log.n && i < r->n; i++) {
		struct mem_disk d;

		read_disk(r, r->s->files[i], &d);
		assert_int_equal(d.bytes, disks[i].bytes);
		if (memcmp(d.data, disks[i].data, d.bytes))
			fail_msg("%s: %s was not recorded whole", r->s->name, r->s->files[i]);
		mem_disk_fini(&d);
	}
}

static void cut_all(struct fiber *f, void *arg)
{
	struct rig *r = arg;
	struct cuts cuts = {.start = r->start,
			    .files = r->n,
			    .log = &r->log,
			    .random = true,
			    .judge = compare_with_folder,
			    .seed = r->seed,
			    .arg = r};

	cuts_run(f, &cuts);
	r->judging = true;
	cuts.random = false;
	cuts.samples = r->s->samples;
	cuts.judge = judge;
	cuts_run(f, &cuts);
	r->judging = false;
}

void rig_cut_everywhere(struct rig *r, struct loop *loop)
{
	r->recording = true;
	if (r->s->workload)
		assert_int_equal(loop_run_fiber(loop, r->s->workload, r), 0);
	for (u32 i = 0; i < RIG_COMMANDS && r->s->commands[i]; i++) {
		rig_run(r, r->s->commands[i]);
		r->ended[i] = r->log.n;
	}
	r->recording = false;
	assert_int_equal(loop_run_fiber(loop, cut_all, r), 0);
	print_message("%s: %zu events, %llu cuts, %u also checked by qemu-img\n", r->s->name,
		      r->log.n, (unsigned long long)r->judged, r->shown);
	assert_true(r->log.n > 4);
}
