/* What the ACPI files share: the blob of tables and the script that links it. */
#ifndef FIRMWARE_ACPI_INTERNAL_H
#define FIRMWARE_ACPI_INTERNAL_H

#include "firmware/internal.h"

#define ACPI_TABLES_FILE "etc/acpi/tables"
#define ACPI_RSDP_FILE	 "etc/acpi/rsdp"
#define ACPI_LOADER_FILE "etc/table-loader"

#define ACPI_HEADER_BYTES   36
#define ACPI_CHECKSUM_AT    9 /* of a table */
#define ACPI_FACS_ALIGNMENT 64

/* Start a table in the blob: its header, to be finished by acpi_end. */
size_t acpi_begin(struct blob *b, const char signature[4], u8 revision, const char id[8]);
/* Fill in length and, as the script will do it again, the checksum. */
void acpi_end(struct blob *b, size_t table, struct blob *script);

/* Steps of the script (acpi_loader.c). */
void loader_allocate(struct blob *script, const char *file, u32 align, bool low);
/* The 4 or 8 bytes at `at` of file hold an offset in `to`: add where `to` went. */
void loader_pointer(struct blob *script, const char *file, u32 at, u8 size, const char *to);
void loader_checksum(struct blob *script, const char *file, u32 at, u32 start, u32 bytes);

/* AML (aml.c): what the SSDT is made of.  begin returns what end takes. */
size_t aml_begin_scope(struct blob *b, const char name[4]); /* one segment, from the root */
size_t aml_begin_device(struct blob *b, const char name[4]);
void aml_end(struct blob *b, size_t package);
void aml_name_u32(struct blob *b, const char name[4], u32 value);
void aml_name_string(struct blob *b, const char name[4], const char *value);

#endif
