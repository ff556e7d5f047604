/* Whole runs of cowimg, recorded: the tool's own main() is called in this process, the
 * linker lets every host file that it opens pass through a recording filter (--wrap,
 * see the Makefile), and power cuts are tried on what came out of it. */
#ifndef TESTS_CRASH_TOOL_RIG_H
#define TESTS_CRASH_TOOL_RIG_H

#include "tests/unit/backends.h"

#include "block/image.h"
#include "tests/lib/cuts.h"

#define RIG_COMMANDS 2

struct scenario {
	const char *name;
	const struct unlock_policy *unlock; /* of encrypted images; NULL: they stay locked */
	const char *format;		    /* NULL: qcow2 */
	const char *passphrases[2]; /* one of them opens it, for the reference; NULL: none */
	u32 cluster_bytes, refcount_bits;
	bool lazy;
	u64 bytes;   /* of the disks */
	u32 samples; /* of losses at each moment */
	/* The files of a run: what is done to them is recorded.  NULL ends the list. */
	const char *files[CUTS_MOST_FILES + 1];
	u32 images; /* the first ones are images, the others hold data; 0: all are images */
	/* What is recorded: a fiber with the rig, then commands, one after the other. */
	void (*workload)(struct fiber *f, void *rig);
	const char *commands[RIG_COMMANDS];
	/* A cut after `events` events: open what there is and look. */
	void (*judge)(struct fiber *f, void *rig, size_t events);
	u64 seed;
};

struct rig {
	const struct scenario *s;
	char dir[64];
	struct mem_disk start[CUTS_MOST_FILES];
	struct mem_disk *disks; /* of the cut that is judged */
	u32 n;
	struct record_log log;
	size_t events;		    /* ... and when */
	size_t ended[RIG_COMMANDS]; /* the log when a command had returned */
	bool recording;
	bool judging;		  /* files are those of the cut, in memory */
	u8 *old[CUTS_MOST_FILES]; /* what each file showed before, over its backing files */
	u8 *now;		  /* scratch */
	u64 seed, judged;
	u32 shown;
	u8 stamp;
};

/* Make the folder; rig_free removes it. */
struct rig *rig_new(const struct scenario *s);
void rig_free(struct rig *r);
/* Run cowimg with this command line, split at spaces; @ stands for the folder.  It must
 * end with status 0. */
void rig_run(struct rig *r, const char *line);
/* `create`, with the options of the scenario and these. */
void rig_create(struct rig *r, const char *options, const char *file);

/* On the test's loop: */
/* Runs of bytes here and there, each other than all before. */
void rig_fill(struct fiber *f, struct rig *r, const char *file);
/* Files as they lie in the folder go to r->start, and r->disks for now. */
void rig_load(struct rig *r);
/* The same, and what they show to r->old. */
void rig_note(struct fiber *f, struct rig *r);
/* Record the scenario's commands, then judge every cut.  Not on a fiber. */
void rig_cut_everywhere(struct rig *r, struct loop *loop);

/* For judges: open one of the files as the cut left it, over its backing files. */
struct image *rig_open(struct fiber *f, struct rig *r, const char *file,
		       const struct open_policy *policy);
u32 rig_index(const struct rig *r, const char *file);
/* Its content is in r->now. */
void rig_read(struct fiber *f, struct rig *r, const char *file, const char *snapshot);
/* Is every sector of r->now as in a or (unless NULL) b? */
void rig_expect(const struct rig *r, const u8 *a, const u8 *b, const char *what, size_t events);
/* No corruption; an image with lazy refcounts is repaired first. */
void rig_check(struct fiber *f, struct rig *r, const char *file, size_t events);

#endif
