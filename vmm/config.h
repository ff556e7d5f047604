/* What the user wants: the command line and configuration files, understood.
 *
 * Filled in by one table of options (options.c) before anything else exists;
 * read-only afterwards.  Strings belong to the struct.  [main thread] */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "base/base.h"
#include "base/error.h"
#include "base/list.h"
#include "base/opts.h"
#include "block/secret.h"
#include "block/throttle.h"
#include "firmware/smbios.h"
#include "vmm/vnc_config.h"

enum drive_if { DRIVE_IF_IDE, DRIVE_IF_VIRTIO, DRIVE_IF_NONE };

#define RAM_BYTES_DEFAULT (128 * MiB)

#define IDE_BUSES      2
#define IDE_UNITS      2
#define MAX_SERIALS    4
#define DRIVE_NO_PLACE (-1)

struct drive_config {
	struct list link;
	char *source; /* "-hda x": how messages name it */
	char *id;     /* "ide0-hd0" */
	char *file;   /* NULL: no medium */
	char *format, *cache, *aio, *serial, *werror, *rerror;
	struct throttle_limits limits;
	char *limits_group; /* NULL: its own */
	struct opts image;  /* what else was said of the image: "encrypt.key-secret", ... */
	enum drive_if interface;
	int bus, unit; /* DRIVE_NO_PLACE until config_finish */
	bool cdrom, readonly, snapshot, discard_unmap;
	bool copy_on_read, share_rw, node; /* node: of -blockdev */
	bool snapshot_given;		   /* so that -snapshot does not override it */
	bool made_up;			   /* the CD drive that every machine has */
};

struct node_config { /* -blockdev; option_blockdev.c makes drives of them */
	struct list link;
	char *source, *name;
	struct opts opts;
	bool used; /* another one names it */
};

struct throttle_config { /* drives and throttle nodes name it by the group's name */
	struct list link;
	struct throttle_group *group;
};

/* -device */
struct device_config {
	struct list link;
	char *source;
	char *driver, *id; /* id NULL: not given */
	struct opts props; /* the rest */
};

/* -netdev, -nic, -net: what the option said, in the order of the command line. */
enum net_use { NET_USE_NETDEV, NET_USE_NIC, NET_USE_NET };
struct net_config {
	struct list link;
	char *source;
	enum net_use use;
	struct opts opts; /* "type" among them */
};

/* -chardev */
struct chardev_config {
	struct list link;
	char *source, *id, *spec; /* spec: as base/chardev.h wants it */
	bool mux;
};

/* -serial, -monitor, -mon, -debugcon: a front end and where it goes. */
struct frontend_config {
	struct list link;
	char *source, *spec; /* "chardev:ID" too */
};

enum rtc_base { RTC_UTC, RTC_LOCALTIME, RTC_DATE };
enum end_action { END_DEFAULT, END_RESET, END_SHUTDOWN, END_PAUSE, END_NONE };

struct config {
	/* machine */
	char *name, *process_name;
	u8 uuid[16];
	struct opts smbios[SMBIOS_TYPES];
	bool has_uuid, has_accel; /* accel: named on the command line; otherwise KVM all the same */
	u64 ram_bytes;
	char *mem_path; /* a directory; NULL: anonymous memory */
	bool mem_prealloc, mem_merge, mem_no_core;
	u32 cpus, max_cpus, sockets, cores, threads; /* 0: not given */
	char *cpu_model;			     /* "host,+flag" */
	/* boot */
	char *boot_order, *boot_once; /* letters, NULL: default */
	bool boot_menu, boot_strict;
	u32 boot_splash_ms, boot_retry_ms; /* UINT32_MAX: not given */
	char *bios, *kernel, *initrd, *append;
	struct list firmware_dirs; /* of dir_config, -L, first wins */
	/* devices */
	struct secrets secrets; /* -object secret */
	struct list drives, nodes, devices, chardevs, serials, monitors, debugcons, nets, vncs;
	struct list rngs, filters; /* -object; rngs: frontend_config, its source is the id */
	struct list throttles;	   /* -object throttle-group */
	char *vga;		   /* "std", "none"; NULL: default */
	bool nographic, no_devices;
	bool no_default_net; /* somebody said something about networks */
	bool no_graphics;    /* machine property: firmware talks to the serial port */
	u32 escape_char;
	/* time */
	enum rtc_base rtc_base;
	int rtc_clock; /* as enum rtc_clock */
	s64 rtc_date;  /* RTC_DATE: seconds since 1970 */
	/* run */
	bool start_stopped, snapshot, daemonize;
	enum end_action on_reboot, on_shutdown, on_panic;
	char *pid_file, *log_file, *loadvm; /* loadvm: tag of the snapshot to begin with */
	bool writes_nothing;		    /* an option printed its help: end with 0 */
};

struct dir_config {
	struct list link;
	char *path;
};

void config_init(struct config *c);
void config_fini(struct config *c);

/* Understand argv[1..argc).  Errors name the option.  -help sets writes_nothing. */
int config_parse(struct config *c, int argc, char **argv, struct error *err);
int config_read_file(struct config *c, const char *path, struct error *err); /* -readconfig */
/* Drives, default devices, conflicts, when all is read: part of config_parse. */
int config_finish(struct config *c, struct error *err);

struct chardev_config *config_find_chardev(const struct config *c, const char *id);
struct drive_config *config_find_drive(const struct config *c, const char *id);
struct throttle_group *config_find_throttle(const struct config *c, const char *id);

#endif
