/* delvm: a set of snapshots goes away.
 *
 * Memory that is still coming in comes from its snapshot's clusters: to delete that one
 * waits until all of it is there, or another one is loaded; the main thread does not.
 * Thread: control. */
#include "vmm/snapshot/snapshot.h"

#include "base/log.h"

#include <errno.h>

struct delete_job {
	struct snapshots *s;
	char *tag;
	struct vm_waiter *waiter; /* NULL: nobody waits */
	struct loop_timer tick;
};

static int delete_now(struct snapshots *s, const char *tag, struct error *err)
{
	struct drive_set set;
	u32 count = 0;
	int ret = drive_set_init(&set, s->vm, err);

	if (ret == 0)
		ret = set_delete(&set, tag, NULL, &count, err);
	if (ret == 0 && !count)
		return err_set(err, -ENOENT, "Snapshot '%s' does not exist in one or more devices",
			       tag);
	return ret;
}

void delete_free(struct delete_job *job)
{
	if (!job)
		return;
	job->s->del = NULL;
	loop_timer_del(&job->tick);
	free(job->tag);
	free(job);
}

static void delete_ends(struct delete_job *job, int ret, const struct error *err)
{
	struct vm_waiter *w = job->waiter;

	if (ret < 0 && !w)
		log_error("delvm %s: %s", job->tag, err->text);
	delete_free(job);
	if (w)
		w->done(w, ret, err->text);
}

void delete_goes_on(struct snapshots *s)
{
	struct delete_job *job = s->del;
	struct error err = {0};
	int ret;

	if (!job || load_is_of(s, job->tag))
		return;
	ret = delete_now(s, job->tag, &err);
	delete_ends(job, ret, &err);
}

static void on_tick(struct loop_timer *timer)
{
	struct delete_job *job = container_of(timer, struct delete_job, tick);
	u64 there, units;

	if (!job->waiter || !job->s->load)
		return;
	load_progress(job->s, &there, &units);
	job->waiter->progress(job->waiter, there * RAM_UNIT, units * RAM_UNIT);
	loop_timer_set(&job->tick, now_ns() + SNAPSHOT_TICK_NS);
}

int delete_none(struct snapshots *s, struct error *err)
{
	return s->del ? err_set(err, -EBUSY, "snapshot '%s' is being deleted", s->del->tag) : 0;
}

static int delete_later(struct snapshots *s, const char *tag, struct vm_waiter *w,
			struct error *err)
{
	struct delete_job *job;
	int ret = delete_none(s, err);

	if (ret < 0)
		return ret;
	job = xnew(struct delete_job);
	job->s = s;
	job->tag = xstrdup(tag);
	job->waiter = w;
	s->del = job;
	loop_timer_init(s->vm->loop, &job->tick, on_tick);
	loop_timer_set(&job->tick, now_ns() + SNAPSHOT_TICK_NS);
	return 0;
}

int vm_delvm(struct vm *vm, const char *tag, struct vm_waiter *w, struct error *err)
{
	struct snapshots *s;
	int ret = snapshots_of(vm, &s, err);

	if (ret < 0)
		return ret;
	if (s->save)
		return err_set(err, -EBUSY, "a snapshot is being taken");
	if (load_is_of(s, tag))
		return delete_later(s, tag, w, err);
	ret = delete_now(s, tag, err);
	return ret < 0 ? ret : 1;
}

void delete_cancel(struct snapshots *s)
{
	struct error err = {0};

	delete_ends(s->del, err_set(&err, -ECANCELED, "cancelled"), &err);
}

void delete_forget_waiter(struct snapshots *s, struct vm_waiter *w)
{
	if (s->del && s->del->waiter == w)
		s->del->waiter = NULL;
}
