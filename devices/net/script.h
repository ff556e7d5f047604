/* Programs that set up and take down an interface. */
#ifndef DEVICES_NET_SCRIPT_H
#define DEVICES_NET_SCRIPT_H

#include "base/error.h"

/* Run `path ifname` and wait for its end; anything but success is an error. */
int script_run(const char *path, const char *ifname, struct error *err);

#endif
