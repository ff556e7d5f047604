/* Filters over a host file, for tests: record what is written, fail on purpose. */
#ifndef BLOCK_FILTER_H
#define BLOCK_FILTER_H

#include "block/image.h"

/* One event, in the order of completion.  `issued` is how many events the log
 * held when this one was issued.  So a sync makes durable the writes before its
 * `issued`, and nothing that is recorded later; two writes may reach the disk in
 * either order unless a sync that covers the first was recorded before the second
 * was issued. */
struct record_event {
	enum record_kind {
		RECORD_WRITE,
		RECORD_ZERO,
		RECORD_DISCARD,
		RECORD_SYNC,
		RECORD_RESIZE,
		RECORD_MARK
	} kind;
	u64 hoff, bytes; /* RECORD_RESIZE: bytes is the new size; RECORD_MARK: hoff is the mark */
	u8 *data;	 /* RECORD_WRITE only */
	size_t issued;
	u32 file; /* of those that share the log */
};
struct record_log {
	struct record_event *events;
	size_t n, room;
};
/* Takes `below`; events go to `log`, which outlives the image. */
int filter_record_new(struct image **out, struct image *below, struct record_log *log);
/* One of several files with one log: a sync covers what went to the same file. */
int filter_record_file(struct image **out, struct image *below, struct record_log *log, u32 file);
void record_mark(struct record_log *log, u64 mark);
void record_log_fini(struct record_log *log);

/* Fail the Nth matching operation from now on (1 = next; 0 = none); `sticky`
 * fails all after it too. */
struct fault_rule {
	unsigned reads, writes, syncs; /* countdowns */
	int error;		       /* negative errno to answer */
	bool sticky;
};
/* Takes `below`; the rule is lent and may be changed between requests. */
int filter_fault_new(struct image **out, struct image *below, struct fault_rule *rule);

#endif
