/* Who changes the image, and who wants it to stand still.
 *
 * Requests that change it are counted on their way in.  A snapshot freezes the
 * image: it waits for those under way, and later ones wait for the thaw.  Reads
 * go on.  The driver calls one another without this, so nothing is counted twice.
 * Thread: the image's loop. */
#include "block/qcow2/change.h"
#include "block/qcow2/parts.h"

#include <errno.h>

void change_begin(struct fiber *f, struct qcow2 *q)
{
	while (unlikely(q->frozen))
		fiber_queue_wait(f, &q->change_queue);
	q->changes++;
}

void change_end(struct qcow2 *q)
{
	assert(q->changes);
	if (--q->changes == 0 && unlikely(q->frozen))
		fiber_queue_wake_all(&q->change_queue);
}

void changes_freeze(struct fiber *f, struct qcow2 *q)
{
	while (q->frozen)
		fiber_queue_wait(f, &q->change_queue);
	q->frozen = true;
	while (q->changes)
		fiber_queue_wait(f, &q->change_queue);
}

void changes_thaw(struct qcow2 *q)
{
	assert(q->frozen && !q->changes);
	q->frozen = false;
	fiber_queue_wake_all(&q->change_queue);
}

int change_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov, unsigned n)
{
	int ret;

	change_begin(f, to_qcow2(img));
	ret = qcow2_write(f, img, goff, iov, n);
	change_end(to_qcow2(img));
	return ret;
}

int change_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	int ret;

	change_begin(f, to_qcow2(img));
	ret = qcow2_zero(f, img, goff, bytes, flags);
	change_end(to_qcow2(img));
	return ret;
}

int change_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	int ret;

	change_begin(f, to_qcow2(img));
	ret = qcow2_discard(f, img, goff, bytes);
	change_end(to_qcow2(img));
	return ret;
}

int change_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		  struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	u64 span = l2_span(q), start = align_up(img->bytes, span), end = q->l1_entries * span;
	int ret;

	if (q->job)
		return err_set(err, -EBUSY, "A snapshot is being taken");
	/* VM state must not become part of the disk. */
	ret = img->writable && start < end ? qcow2_vmstate_drop(f, img, 0, end - start) : 0;
	if (ret < 0)
		return err_set_errno(err, ret, "Could not drop the VM state");
	change_begin(f, q);
	ret = qcow2_resize(f, img, bytes, mode, err);
	change_end(to_qcow2(img));
	return ret;
}

int change_flush(struct fiber *f, struct image *img)
{
	int ret;

	change_begin(f, to_qcow2(img));
	ret = qcow2_flush(f, img);
	change_end(to_qcow2(img));
	return ret;
}
