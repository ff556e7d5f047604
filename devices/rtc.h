/* Real-time clock and CMOS memory; see rtc.c. */
#ifndef DEVICES_RTC_H
#define DEVICES_RTC_H

#include "devices/device.h"

extern const struct device_class rtc_class;

/* What the clock goes by.  Virtual time stands still while the machine does; the others
 * are caught up with when it goes on: the host's wall clock, also over a snapshot, or its
 * monotonic clock, which nobody sets. */
enum rtc_clock { RTC_CLOCK_VIRTUAL, RTC_CLOCK_HOST, RTC_CLOCK_MONOTONIC };
/* Before it first runs; virtual time if nobody calls it.  [control] */
void rtc_follow(struct device *dev, enum rtc_clock clock);

/* What the guest's clock shows now: seconds since 1970 as if it were UTC.  Without
 * it the clock starts with the host's UTC.  [control] */
void rtc_set_time(struct device *dev, s64 seconds);
/* A byte of battery-backed memory (0x0e .. 0x7f); the checksum follows.  The sizes
 * of memory and the number of CPUs are there already.  [control] */
void rtc_set_cmos(struct device *dev, u8 index, u8 value);

#endif
