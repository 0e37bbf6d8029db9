/* Copyright 2026 The matnet-tf authors.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Answers requests to a SavedModel by TensorFlow's C API, without Python.
 *
 *     serve EXPORT < requests > answers
 *
 * Integers are little-endian and of 64 bits. A text is its length and its bytes.
 *
 *     request   count of inputs; of each: operation (text), index, type, rank, dimensions, and the
 *               length and bytes of the values, or of each string by itself; count of outputs; of
 *               each: operation, index
 *     answer    code (0 if all went well) and message (text); then of each output: type, rank,
 *               dimensions, length and bytes
 *
 * Ends at the end of the requests with status 0.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

#define MOST 64 /* inputs or outputs, or dimensions */

static void fail(const char *message) {
  fprintf(stderr, "serve: %s\n", message);
  exit(1);
}

/* Reads and writes, or ends the program. */

static void get(void *into, size_t size) {
  if (size && fread(into, 1, size, stdin) != size) fail("a request was cut off");
}

static int64_t number(int64_t least, int64_t most) {
  int64_t value;
  get(&value, sizeof value);
  if (value < least || value > most) fail("a number of a request is out of range");
  return value;
}

static char *text(void) {
  int64_t length = number(0, 1 << 20);
  char *bytes = malloc(length + 1);
  if (!bytes) fail("out of memory");
  get(bytes, length);
  bytes[length] = 0;
  return bytes;
}

static void put(const void *from, size_t size) {
  if (size && fwrite(from, 1, size, stdout) != size) fail("an answer could not be written");
}

static void put_number(int64_t value) { put(&value, sizeof value); }

/* Tensors. */

static void free_bytes(void *data, size_t length, void *unused) { free(data); }

static void free_strings(void *data, size_t length, void *unused) {
  TF_TString *strings = data;
  for (size_t i = 0; i < length / sizeof *strings; i++) TF_TString_Dealloc(&strings[i]);
  free(data);
}

static TF_Tensor *read_tensor(void) {
  TF_DataType type = number(1, 1 << 10);
  int rank = number(0, MOST);
  int64_t dimensions[MOST], count = 1;
  for (int i = 0; i < rank; i++) count *= dimensions[i] = number(0, 1 << 20);
  if (type != TF_STRING) {
    int64_t length = number(0, INT64_C(1) << 31);
    void *data = malloc(length + 1);
    if (!data) fail("out of memory");
    get(data, length);
    return TF_NewTensor(type, dimensions, rank, data, length, free_bytes, NULL);
  }
  TF_TString *strings = calloc(count + 1, sizeof *strings);
  if (!strings) fail("out of memory");
  for (int64_t i = 0; i < count; i++) {
    int64_t length = number(0, INT64_C(1) << 31);
    char *bytes = malloc(length + 1);
    if (!bytes) fail("out of memory");
    get(bytes, length);
    TF_TString_Init(&strings[i]);
    TF_TString_Copy(&strings[i], bytes, length);
    free(bytes);
  }
  return TF_NewTensor(type, dimensions, rank, strings, count * sizeof *strings, free_strings, NULL);
}

static void write_tensor(const TF_Tensor *tensor) {
  put_number(TF_TensorType(tensor));
  put_number(TF_NumDims(tensor));
  for (int i = 0; i < TF_NumDims(tensor); i++) put_number(TF_Dim(tensor, i));
  put_number(TF_TensorByteSize(tensor));
  put(TF_TensorData(tensor), TF_TensorByteSize(tensor));
}

static TF_Output read_place(TF_Graph *graph) {
  char *name = text();
  TF_Output place = {TF_GraphOperationByName(graph, name), number(0, 1 << 10)};
  if (!place.oper) fail("the graph has no such operation");
  free(name);
  return place;
}

static void answer(TF_Session *session, TF_Graph *graph, int64_t num_inputs) {
  TF_Output inputs[MOST], outputs[MOST];
  TF_Tensor *given[MOST], *found[MOST] = {NULL};
  for (int i = 0; i < num_inputs; i++) {
    inputs[i] = read_place(graph);
    given[i] = read_tensor();
    if (!given[i]) fail("a request's values do not fit their shape");
  }
  int num_outputs = number(1, MOST);
  for (int i = 0; i < num_outputs; i++) outputs[i] = read_place(graph);

  TF_Status *status = TF_NewStatus();
  TF_SessionRun(session, NULL, inputs, given, num_inputs, outputs, found, num_outputs, NULL, 0,
                NULL, status);
  put_number(TF_GetCode(status));
  put_number(strlen(TF_Message(status)));
  put(TF_Message(status), strlen(TF_Message(status)));
  if (TF_GetCode(status) == TF_OK)
    for (int i = 0; i < num_outputs; i++) write_tensor(found[i]);
  fflush(stdout);
  for (int i = 0; i < num_inputs; i++) TF_DeleteTensor(given[i]);
  for (int i = 0; i < num_outputs; i++)
    if (found[i]) TF_DeleteTensor(found[i]);
  TF_DeleteStatus(status);
}

int main(int count, char **arguments) {
  if (count != 2) fail("takes one argument, the folder of a SavedModel");
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph,
                                                     NULL, status);
  if (TF_GetCode(status) != TF_OK) fail(TF_Message(status));

  int64_t num_inputs;
  while (fread(&num_inputs, 1, sizeof num_inputs, stdin) == sizeof num_inputs) {
    if (num_inputs < 0 || num_inputs > MOST) fail("a number of a request is out of range");
    answer(session, graph, num_inputs);
  }
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteGraph(graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return 0;
}
