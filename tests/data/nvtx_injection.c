/* An NVTX tool in a few lines: what any profiler would see of a process, appended to the file $NVTX_LOG.
 *
 * NVTX loads it where NVTX_INJECTION64_PATH names it. Types and numbers are those of NVTX 3
 * (nvToolsExt.h, nvtxDetail/nvtxTypes.h), written out so that no NVIDIA header is needed.
 * One line an event: pid, kind, domain, name, payload, separated by tabs.
 * Compiled with -DOLD_TOOL it refuses NVTX extensions, as Nsight Systems 2022.4 and 2023.4 in effect do.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    uint16_t version, size;
    uint32_t category;
    int32_t color_type;
    uint32_t color;
    int32_t payload_type, reserved0;
    int64_t payload;
    int32_t message_type;
    const void *message;
} event_attributes;

typedef void (*function)(void);
typedef struct {
    size_t struct_size;
    int (*get_module_function_table)(int module, function ***table, unsigned *size);
} callbacks;

enum { EXPORT_CALLBACKS = 1, MODULE_CORE = 1, MODULE_CORE2 = 5 };
enum { CORE_RANGE_PUSH_A = 9, CORE_RANGE_POP = 11 };
enum { DOMAIN_START = 2, DOMAIN_END = 3, DOMAIN_PUSH = 4, DOMAIN_POP = 5, DOMAIN_REGISTER_STRING = 10, DOMAIN_CREATE = 12 };
enum { MESSAGE_ASCII = 1, MESSAGE_REGISTERED = 3, PAYLOAD_INT64 = 2 };

static void write_line(const char *kind, const void *domain, const char *name, long long payload)
{
    const char *path = getenv("NVTX_LOG");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file) return;
    fprintf(file, "%d\t%s\t%s\t%s\t%lld\n", (int)getpid(), kind, domain ? (const char *)domain : "", name, payload);
    fclose(file);
}

static void write_event(const char *kind, const void *domain, const event_attributes *event)
{
    int named = event->message_type == MESSAGE_ASCII || event->message_type == MESSAGE_REGISTERED;
    write_line(kind, domain, named ? (const char *)event->message : "?",
               event->payload_type == PAYLOAD_INT64 ? (long long)event->payload : -1);
}

/* A domain's handle and a registered string's handle are simply their text. */
static void *domain_create(const char *name) { return strdup(name); }
static void *register_string(void *domain, const char *text) { (void)domain; return strdup(text); }
static int domain_push(void *domain, const event_attributes *event) { write_event("push", domain, event); return 0; }
static int domain_pop(void *domain) { write_line("pop", domain, "", -1); return 0; }
static uint64_t domain_start(void *domain, const event_attributes *event) { write_event("start", domain, event); return 1; }
static void domain_end(void *domain, uint64_t id) { (void)id; write_line("end", domain, "", -1); }
static int push_ascii(const char *name) { write_line("push", NULL, name, -1); return 0; }
static int pop(void) { write_line("pop", NULL, "", -1); return 0; }

int InitializeInjectionNvtx2(const void *(*export_table)(uint32_t))
{
    const callbacks *registry = export_table(EXPORT_CALLBACKS);
    function **core, **core2;
    unsigned core_size, core2_size;
    if (!registry || !registry->get_module_function_table(MODULE_CORE, &core, &core_size)
        || !registry->get_module_function_table(MODULE_CORE2, &core2, &core2_size))
        return 0;
    *core[CORE_RANGE_PUSH_A] = (function)push_ascii;
    *core[CORE_RANGE_POP] = (function)pop;
    *core2[DOMAIN_CREATE] = (function)domain_create;
    *core2[DOMAIN_REGISTER_STRING] = (function)register_string;
    *core2[DOMAIN_PUSH] = (function)domain_push;
    *core2[DOMAIN_POP] = (function)domain_pop;
    *core2[DOMAIN_START] = (function)domain_start;
    *core2[DOMAIN_END] = (function)domain_end;
    write_line("attach", NULL, "", -1);
    return 1;
}

#ifdef OLD_TOOL
int InitializeInjectionNvtxExtension(void *module) { (void)module; return 0; }
#endif
