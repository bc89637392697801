"""Every public function and layer of TensorFlow and both Keras, taken to a file.

Each becomes a small model that is quantized, calibrated, exported and verified, or is
refused with a remedy that works. `run` records the results, `page` prints them.
"""
