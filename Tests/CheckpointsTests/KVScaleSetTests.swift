import Checkpoints
import JSON
import KVQuantization
import TestSupport
import Testing

@Suite struct KVScaleSetTests {
  let directory: TemporaryFolder

  init() throws { directory = try TemporaryFolder() }

  /// A checkpoint whose only tensors are F32 scales.
  func checkpoint(_ scales: [(String, [Float])], config: JSONValue = [:]) throws -> Checkpoint {
    var object = try JSONValue.parse(ModelConfigurationTests.llama).objectValue ?? JSONObject()
    for (key, value) in config.objectValue ?? JSONObject() { object[key] = value }
    try directory.write("config.json", JSONValue.object(object).serialized())
    var writer = try SafetensorsWriter(
      path: "\(directory.path)/model.safetensors",
      tensors: scales.map { .init(name: $0.0, dtype: .float32, shape: $0.1.count == 1 ? [] : [$0.1.count]) })
    for (_, values) in scales { try values.withUnsafeBytes { try writer.append($0) } }
    try writer.finish()
    return try Checkpoint(directory: directory.path)
  }

  @Test(arguments: [
    ("self_attn.k_proj.k_scale", "self_attn.v_proj.v_scale"), ("self_attn.attn.k_scale", "self_attn.attn.v_scale"),
    ("self_attn.k_proj.output_scale", "self_attn.v_proj.output_scale"), ("self_attn.k_scale", "self_attn.v_scale"),
  ])
  func readsEveryName(key: String, value: String) throws {
    let prefix = "model.layers.17."
    let found = try #require(
      try KVScaleSet(
        checkpoint: try checkpoint([
          (prefix + key, [0.25]), (prefix + value, [0.5]), (prefix + "mlp.up_proj.output_scale", [3]),
          (prefix + "self_attn.q_proj.output_scale", [3]), (prefix + "self_attn.k_proj.weight_scale", [3]),
        ])))
    #expect(found.layers.keys.sorted() == [17])
    #expect(found.layers[17]?.key?.value == 0.25 && found.layers[17]?.value?.value == 0.5)
    #expect(found.count == 2 && found.convention == nil && found.range == 0.25...0.5)
  }

  @Test func readsTheDeprecatedSharedScale() throws {
    let found = try #require(
      try KVScaleSet(checkpoint: try checkpoint([("model.layers.0.self_attn.kv_scale", [0.25])])))
    #expect(found.layers[0]?.key?.value == 0.25 && found.layers[0]?.value?.value == 0.25)
    #expect(found.isShared && found.convention == .fp8)
  }

  @Test func theQuantisationConfigNamesTheConvention() throws {
    let names: [(String, [Float])] = [
      ("model.layers.0.self_attn.k_proj.k_scale", [0.25]), ("model.layers.0.self_attn.v_proj.v_scale", [0.25]),
    ]
    for (section, expected) in [
      (["quant_method": "modelopt", "kv_cache_quant_algo": "FP8"], .fp8),
      (["quant_method": "modelopt", "kv_cache_quant_algo": "NVFP4"], .nvfp4),
      (["quant_method": "compressed-tensors", "kv_cache_scheme": ["num_bits": 8, "type": "float"]], .fp8),
      (["quant_method": "modelopt", "kv_cache_quant_algo": "INT8"], nil), (["quant_method": "fp8"], nil),
    ] as [(JSONValue, KVScaleConvention?)] {
      let found = try KVScaleSet(checkpoint: try checkpoint(names, config: ["quantization_config": section]))
      #expect(found?.convention == expected, "\(section)")
    }
  }

  @Test func keepsWhatTheGateMustJudge() throws {
    let found = try KVScaleSet(
      checkpoint: try checkpoint([("model.layers.0.self_attn.k_proj.k_scale", [0.25, 0.5, 1])]))
    #expect(found?.layers[0]?.key?.elementCount == 3 && found?.layers[0]?.value == nil)
    #expect(try KVScaleSet(checkpoint: try checkpoint([("model.norm.weight", [1])])) == nil)
  }

  @Test func refusesTwoScalesForOneSide() throws {
    let both = try checkpoint([
      ("model.layers.0.self_attn.k_proj.k_scale", [0.25]), ("model.layers.0.self_attn.attn.k_scale", [0.5]),
    ])
    let error = #expect(throws: CheckpointError.self) { try KVScaleSet(checkpoint: both) }
    #expect(error?.description.contains("both the KV scale") == true)
  }

  @Test func readsOurOwnFileAndWritesItBack() throws {
    let path = try directory.write(
      "kv_scales.json",
      #"{"format": "kv_scales", "version": 1, "convention": "amax", "headroom": 1.5, "layers": {"0": {"k": 12.5, "v": 3}, "4": {"k": 9}}}"#
    )
    let found = try KVScaleSet(contentsOf: path)
    #expect(found.convention == .amax && found.layers[0]?.value?.value == 3 && found.layers[4]?.value == nil)
    #expect(found.headroom == 1.5)
    let again = try KVScaleSet(json: found.json, path: path)
    #expect(again == found)
  }

  @Test func readsTheParameterFileOfOtherEngines() throws {
    let path = try directory.write(
      "scales.json",
      #"{"model_type": "llama", "kv_cache": {"dtype": "float8_e4m3fn", "scaling_factor": {"0": {"0": 0.1, "1": 0.2}}}}"#
    )
    let found = try KVScaleSet(contentsOf: path)
    #expect(found.convention == .fp8 && found.layers.count == 2 && found.layers[1]?.value?.value == 0.2)
  }

  @Test(arguments: [
    ("{}", "no 'layers'"), ("[]", "an object"), (#"{"layers": {"x": {"k": 1}}}"#, "the index of a layer"),
    (#"{"layers": {"-1": {"k": 1}}}"#, "the index of a layer"), (#"{"layers": {"0": {"k": "1"}}}"#, "a number"),
    (#"{"layers": {"0": {"k": []}}}"#, "a number"),
    (#"{"layers": {"0": {"k": 1}, "0": {"k": 2}}}"#, "appears twice"),
    (#"{"convention": "amax/7", "layers": {}}"#, "one of amax/448"),
    (#"{"headroom": 0.5, "layers": {}}"#, "a number from 1.0 to 1024.0"),
    (#"{"kv_cache": {"dtype": "float8_e4m3fn"}}"#, "no 'kv_cache.scaling_factor'"),
    (#"{"kv_cache": {"dtype": "x", "scaling_factor": {"0": {}, "1": {}}}}"#, "2 ranks"),
    (#"{"layers": {"0": {"k": 1e999}}}"#, "too large for a double"),
  ])
  func refusesOtherSchemas(text: String, expected: String) throws {
    let path = try directory.write("bad.json", text)
    let error = #expect(throws: CheckpointError.self) { try KVScaleSet(contentsOf: path) }
    #expect(error?.description.contains(expected) == true, "\(error?.description ?? "")")
  }

  @Test func mutationsNeverTrap() throws {
    let seeds = [
      #"{"convention":"amax/448","layers":{"0":{"k":1.5,"v":[0.5]},"1":{"k":2,"v":1}}}"#,
      #"{"kv_cache":{"dtype":"float8_e4m3fn","scaling_factor":{"0":{"0":0.1,"1":0.2}}}}"#,
    ]
    var generator = SplitMix(seed: 3)
    var read = 0
    for round in 0..<4000 {
      var bytes = Array(seeds[round % 2].utf8)
      generator.mutate(&bytes)
      guard let document = try? JSONValue.parse(bytes: bytes),
        let scales = try? KVScaleSet(json: document, path: "x")
      else { continue }
      read += 1
      for recipe in KVRecipe.allCases {
        let gate = KVScaleGate(key: recipe, value: .nvfp4, layerCount: 2)
        guard let resolution = try? gate.resolve(scales) else { continue }
        for layer in resolution.layers { try layer.validate() }
      }
    }
    #expect(read > 200)
  }
}
