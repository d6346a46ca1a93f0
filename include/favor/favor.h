/* favor/favor.h: the whole C API. See base.h for the conventions, attention.h for the operator,
 * model.h, data.h and train.h for Transformers on long sequences. */
#ifndef FAVOR_H
#define FAVOR_H
#include <favor/attention.h>
#include <favor/base.h>
#include <favor/config.h>
#include <favor/data.h>
#include <favor/model.h>
#include <favor/tensors.h>
#include <favor/train.h>
#endif
