/* load MODE PLAN [name=value]...: runs one scenario against a server and prints what was measured. */
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_LINE = 4096 };

static char *copy(const char *text)
{
    char *copied = allocate(strlen(text) + 1, 1);
    return strcpy(copied, text);
}

/* A line is a port, a token and a conversation. */
static void read_clients(Plan *plan, const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        fault("cannot read %s", path);
    char line[LONGEST_LINE];
    int lines = 0;
    while (fgets(line, sizeof line, file))
        lines++;
    rewind(file);
    plan->clients = allocate((size_t)lines, sizeof *plan->clients);
    while (fgets(line, sizeof line, file)) {
        const char *port = strtok(line, " \n"), *token = strtok(NULL, " \n"), *conversation = strtok(NULL, " \n");
        if (!conversation)
            fault("line %d of the plan is not complete", plan->count + 1);
        plan->clients[plan->count++] = (Client){atoi(port), copy(token), copy(conversation)};
    }
    fclose(file);
}

static void read_option(Plan *plan, const char *option)
{
    const char *equals = strchr(option, '=');
    const char *value = equals ? equals + 1 : "";
    size_t length = equals ? (size_t)(equals - option) : strlen(option);
    const struct {
        const char *name;
        int *number;
    } numbers[] = {{"in_flight", &plan->in_flight},
                   {"sender_every", &plan->sender_every},
                   {"at_once", &plan->at_once},
                   {"kept", &plan->kept}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strlen(numbers[i].name) == length && !strncmp(option, numbers[i].name, length)) {
            *numbers[i].number = atoi(value);
            return;
        }
    if (!strncmp(option, "warm_up=", 8))
        plan->warm_up = atof(value);
    else if (!strncmp(option, "seconds=", 8))
        plan->seconds = atof(value);
    else if (!strncmp(option, "server_pids=", 12))
        plan->server_pids = value;
    else
        fault("there is no option %s", option);
}

int main(int count, char **arguments)
{
    const struct {
        const char *name;
        void (*run)(const Plan *);
    } modes[] = {{"rooms", rooms}, {"connects", connects}, {"idle", idle}, {"posts", posts}};
    Plan plan = {.warm_up = 1, .seconds = 1, .in_flight = 1, .sender_every = 1, .at_once = 64, .server_pids = ""};
    if (count < 3)
        fault("usage: load MODE PLAN [name=value]...");
    read_clients(&plan, arguments[2]);
    for (int i = 3; i < count; i++)
        read_option(&plan, arguments[i]);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(arguments[1], modes[i].name)) {
            modes[i].run(&plan);
            return 0;
        }
    fault("there is no mode %s", arguments[1]);
}
