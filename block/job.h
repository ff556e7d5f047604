/* Work on the images of a drive while its requests go on: streaming what is behind
 * the top into it, committing images into one behind them.  One job a drive.
 *
 * A job may be stopped at any moment, by a crash too: what names there were show
 * what they showed.  Run it again: what was copied is found, and not copied twice.
 * Thread: any but the loop's own, for what takes no fiber. */
#ifndef BLOCK_JOB_H
#define BLOCK_JOB_H

#include "block/blk.h"

enum job_type { JOB_STREAM, JOB_COMMIT };

/* What becomes of the top when an active commit has got everything. */
enum job_end {
	JOB_WAIT,  /* "ready": job_control decides */
	JOB_PIVOT, /* the base is the drive's image from then on */
	JOB_EMPTY, /* it stays, and is empty */
};

struct job_request {
	enum job_type type;
	/* Commit: from this image on, NULL: the active one. */
	const char *top;
	/* Down to this one, which a stream leaves where it is; NULL: to the last one. */
	const char *base;
	bool one;  /* commit: base is the image right behind the top */
	u64 speed; /* bytes a second; 0: no limit */
	enum job_end end;
	/* Called once on the loop thread when the job is over; NULL: nobody waits. */
	void (*ended)(void *arg, int ret, const char *text);
	void *arg;
};

struct job_status {
	const char *type; /* "stream", "commit" */
	u64 done, total, speed;
	bool paused, ready;
};

enum job_verb { JOB_PAUSE, JOB_RESUME, JOB_CANCEL, JOB_CANCEL_NOW, JOB_COMPLETE, JOB_SPEED };

int job_start(struct blk *blk, const struct job_request *req, struct error *err);
/* -ENOENT: there is none. */
int job_status(struct blk *blk, struct job_status *out);
/* What follows from it happens later.  The words are the reference's. */
int job_control(struct blk *blk, enum job_verb verb, u64 value, struct error *err);
/* Nobody hears of its end any more. */
void job_forget_waiter(struct blk *blk, void *arg);

/* --- on the loop --- */
int job_start_fiber(struct fiber *f, struct blk *blk, const struct job_request *req,
		    struct error *err);
/* Is nothing at work on the drive's images?  -EBUSY with the reference's words. */
int job_none(const struct blk *blk, struct error *err);
/* Until it is over, by itself or, with `cancel`, soon. */
void job_wait(struct fiber *f, struct blk *blk, bool cancel);

#endif
