// Arduino: put edgeprof_mcu.c, edgeprof_mcu.h and your model beside this sketch.
#include "edgeprof_mcu.h"
#include "model.h"

static uint32_t microseconds() { return micros(); }
static void send_byte(uint8_t byte) { Serial.write(byte); }
static void set_pin(int level) { digitalWrite(2, level); }

static edgeprof_mcu_t firmware;

void setup() {
  pinMode(2, OUTPUT);
  Serial.begin(115200);
  while (!Serial) {
  }
  firmware.name = "arduino";
  firmware.model = "linear";
  firmware.input = "1x64:uint8";
  firmware.buffer = model_input;
  firmware.input_bytes = MODEL_BYTES;
  firmware.results = model_results;
  firmware.classes = MODEL_CLASSES;
  firmware.infer = model_infer;
  firmware.microseconds = microseconds;
  firmware.send = send_byte;
  firmware.pin = set_pin;
  edgeprof_mcu_begin(&firmware);
}

void loop() {
  while (Serial.available()) edgeprof_mcu_receive((uint8_t)Serial.read());
}
