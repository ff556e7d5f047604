/* Groups of image requests; see group.h. */
#include "block/group.h"

#include "base/io.h"
#include "block/crypt_io.h"

#include <errno.h>

struct job {
	struct image_group *group;
	struct image_transfer t;
	struct iovec iov[];
};

void image_group_init(struct image_group *g)
{
	*g = (struct image_group){0};
	fiber_queue_init(&g->wait);
}

static struct job *job_new(struct image_group *g, const struct image_transfer *t)
{
	struct job *job = try_alloc(sizeof(*job) + t->n * sizeof(struct iovec));

	if (!job)
		return NULL;
	job->group = g;
	job->t = *t;
	job->t.n = iov_slice(job->iov, t->iov, t->n, t->skip, t->bytes);
	job->t.iov = job->iov;
	job->t.skip = 0;
	return job;
}

static void note_error(struct image_group *g, int ret)
{
	if (ret < 0 && !g->error)
		g->error = ret;
}

static int run(struct fiber *f, const struct image_transfer *t, const struct iovec *iov, unsigned n)
{
	if (t->crypt)
		return crypt_transfer(f, t, iov, n);
	return t->fn(f, t->img, t->offset, iov, n);
}

static void job_run(struct fiber *f, void *arg)
{
	struct job *job = arg;
	struct image_group *g = job->group;

	note_error(g, run(f, &job->t, job->t.iov, job->t.n));
	free(job);
	g->pending--;
	fiber_queue_wake_all(&g->wait);
}

void image_group_add(struct fiber *f, struct image_group *g, const struct image_transfer *t)
{
	struct job *job;

	while (g->pending >= GROUP_MAX)
		fiber_queue_wait(f, &g->wait);
	job = job_new(g, t);
	if (job && fiber_spawn(fiber_loop(f), job_run, job) == 0) {
		g->pending++;
		return;
	}
	free(job);
	note_error(g, image_transfer(f, t));
}

int image_group_wait(struct fiber *f, struct image_group *g)
{
	while (g->pending)
		fiber_queue_wait(f, &g->wait);
	return g->error;
}

int image_transfer(struct fiber *f, const struct image_transfer *t)
{
	struct iovec few[16];
	AUTO_FREE struct iovec *many = NULL;
	struct iovec *iov = few;
	unsigned n;

	if (t->skip == 0 && t->bytes == iov_bytes(t->iov, t->n))
		return run(f, t, t->iov, t->n);
	if (t->n > ARRAY_LEN(few)) {
		many = try_alloc(t->n * sizeof(*many));
		if (!many)
			return -ENOMEM;
		iov = many;
	}
	n = iov_slice(iov, t->iov, t->n, t->skip, t->bytes);
	return run(f, t, iov, n);
}
