/* cli/pages.h: what the pages made from the option rows (help, manual, completion) share. */
#ifndef FAVOR_CLI_PAGES_H
#define FAVOR_CLI_PAGES_H

#include "cli.h"

/* The word that stands for an option's value: "N", "FILE", "a|b|c"; "" for flags. */
const char *cli_metavar(const cli_option *option);
/* "favor eval DIR --data FILE... [OPTION...]" */
void cli_usage(FILE *file, const cli_command *command);
/* Every line of `lines`, between `before` and `after`. */
void cli_print_lines(FILE *file, const char *lines, const char *before, const char *after);

#endif
