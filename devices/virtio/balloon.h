/* virtio-balloon: memory that the guest lends back to the host. */
#ifndef DEVICES_VIRTIO_BALLOON_H
#define DEVICES_VIRTIO_BALLOON_H

#include "devices/device.h"

extern const struct device_class virtio_balloon_class;

/* The machine's; NULL: it has none. */
struct device *balloon_find(struct machine *m);
/* Ask the guest to make do with this much memory.  [control] */
void balloon_set_target(struct device *dev, u64 bytes);
/* What it has now, by its own word.  [control] */
u64 balloon_actual(struct device *dev);

/* What the guest told about its memory, the n-th: false behind the last.  There are some
 * only when guest-stats-polling-interval is set.  [control] */
bool balloon_stat(struct device *dev, unsigned n, const char **name, u64 *value);

#endif
