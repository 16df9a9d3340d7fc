import CPUBackend
import Checkpoints
import Engine
import JSON
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import TestSupport
import Testing
import TextCodec

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The bug of record: a checkpoint's k_scale and v_scale, calibrated for an FP8 cache, applied to another cache divide every
/// score by 16 to 50 and the model babbles. With the gate they change nothing but how values are stored.
@Suite struct KVScaleTests {
  /// A shipped model with scales of 0.06 on every layer, as ModelOpt writes them for an FP8 cache.
  struct ScaledCheckpoint {
    private let folder: TemporaryFolder
    var path: String { folder.path }

    init(_ model: String, algorithm: String = "FP8", scale: Float = 0.06) throws {
      folder = try TemporaryFolder()
      let source = Repository.model(model)
      symlink("\(source)/tokenizer.json", folder.file("tokenizer.json"))
      symlink("\(source)/model.safetensors", folder.file("weights.safetensors"))
      var config = try JSONValue.parse(contentsOf: "\(source)/config.json").objectValue ?? JSONObject()
      config["quantization_config"] = ["quant_method": "modelopt", "kv_cache_quant_algo": .string(algorithm)]
      try write("config.json", .object(config))
      let layers = config["num_hidden_layers"]?.intValue ?? 0
      let names = (0..<layers).flatMap { layer in
        ["k_proj.k_scale", "v_proj.v_scale"].map { "model.layers.\(layer).self_attn.\($0)" }
      }
      var writer = try SafetensorsWriter(
        path: folder.file("scales.safetensors"), tensors: names.map { .init(name: $0, dtype: .float32, shape: []) })
      for _ in names { try withUnsafeBytes(of: scale) { try writer.append($0) } }
      try writer.finish()
      var map = JSONObject()
      for name in try SafetensorsFile(path: folder.file("weights.safetensors")).tensorNames {
        map[name] = "weights.safetensors"
      }
      for name in names { map[name] = "scales.safetensors" }
      try write("model.safetensors.index.json", ["weight_map": .object(map)])
    }

    func write(_ name: String, _ value: JSONValue) throws { try folder.write(name, value.serialized()) }
  }

  /// Logits of every token of a prompt, with the scales that the gate lets through.
  static func logits(
    _ directory: String, _ recipes: CacheRecipes, request: KVScaleRequest = KVScaleRequest()
  ) throws -> (values: [Float], scales: KVScaleResolution) {
    let runtime = try ModelRuntime(
      directory: directory, attention: AttentionRequest(backend: "reference", recipes: recipes), threadCount: 1)
    let tokens = try Tokenizer(contentsOf: directory).encode(
      "Mia has 24 coins. Leo gives Mia 18 more. How many coins?", addSpecialTokens: false, allowSpecial: false)
    let model = runtime.model
    let scales = try request.resolve(runtime.checkpoint, recipes: recipes, layerCount: model.layerCount)
    let pool = try PagePool(
      layout: try model.cacheLayout(recipes, pageSize: 16), layerCount: model.layerCount, pageCount: 4,
      scales: scales.layers)
    var batch = StepBatch()
    batch.append(tokens: tokens, start: 0, pages: [0, 1, 2, 3], logits: .all)
    var values = [Float](repeating: 0, count: tokens.count * model.vocabularySize)
    try values.withUnsafeMutableBufferPointer { try model.forward(batch, pool: pool, logits: $0) }
    return (values, scales)
  }

  static func distance(_ a: [Float], _ b: [Float]) -> Double {
    let (error, norm) = zip(a, b).reduce((0.0, 0.0)) { sums, pair in
      let difference = Double(pair.0) - Double(pair.1)
      return (sums.0 + difference * difference, sums.1 + Double(pair.1) * Double(pair.1))
    }
    return (error / norm).squareRoot()
  }

  @Test(arguments: ["tiny-qwen3", "tiny-deepseek-v3"])
  func scalesOfAnFP8CacheChangeOnlyHowValuesAreStored(model: String) throws {
    let scaled = try ScaledCheckpoint(model)
    let plain = Repository.model(model)
    let exact = try Self.logits(plain, CacheRecipes(.bf16)).values
    let ignored = try Self.logits(scaled.path, CacheRecipes(.bf16))
    #expect(ignored.values == exact, "a bf16 cache must not notice the scales")
    #expect(ignored.scales.warnings.count == 1)
    #expect(ignored.scales.warnings.first?.contains("0.06 to 0.06) are ignored: a bf16 cache") == true)
    for recipe in [KVRecipe.fp8E4M3, .nvfp4] {
      let withoutScales = try Self.logits(plain, CacheRecipes(recipe), request: KVScaleRequest(source: .none))
      let unscaled = Self.distance(withoutScales.values, exact)
      let found = try Self.logits(scaled.path, CacheRecipes(recipe))
      let distance = Self.distance(found.values, exact)
      #expect(found.scales.warnings.isEmpty)
      #expect(found.scales.layers.first?.key == (recipe == .fp8E4M3 ? 0.06 : 0.01))
      // The codec's own error, give or take how the values fall on its grid.
      #expect(distance < 2 * unscaled && distance < 0.2, "\(recipe): \(distance) against \(unscaled)")
    }
  }

  @Test func theFlagsDecideWhatTheFilesDoNot() throws {
    let open = try ScaledCheckpoint("tiny-qwen3", algorithm: "INT8")
    let checkpoint = try Checkpoint(directory: open.path)
    func resolve(_ request: KVScaleRequest, _ recipe: KVRecipe = .nvfp4) throws -> KVScaleResolution {
      try request.resolve(checkpoint, recipes: CacheRecipes(recipe), layerCount: 6)
    }
    #expect(throws: KVQuantizationError.self) { try resolve(KVScaleRequest()) }
    #expect(try resolve(KVScaleRequest(convention: .nvfp4)).layers.first?.key == 0.06)
    #expect(try resolve(KVScaleRequest(source: .none)).layers == Array(repeating: .one, count: 6))
    let taken = try resolve(KVScaleRequest(), .fp8E4M3)
    #expect(taken.layers.first?.key == 0.06 && taken.warnings.count == 1)
    try open.write("kv_scales.json", ["convention": "amax", "layers": ["0": ["k": 2688, "v": 1344]]])
    let file = try resolve(KVScaleRequest(source: .file("\(open.path)/kv_scales.json")))
    #expect(file.layers.first == DecodeScales(key: 1, value: 0.5) && file.warnings.count == 1)
    #expect(throws: CheckpointError.self) { try resolve(KVScaleRequest(source: .file("/no/such/file"))) }
  }

  /// kv_scales.json beside a model is found where the checkpoint itself has no scales.
  @Test func aFileBesideTheModelIsFound() throws {
    let scaled = try ScaledCheckpoint("tiny-qwen3")
    try scaled.write("model.safetensors.index.json", ["weight_map": ["model.norm.weight": "weights.safetensors"]])
    try scaled.write("kv_scales.json", ["convention": "amax", "layers": ["5": ["k": 448, "v": 896]]])
    let found = try KVScaleRequest().resolve(
      try Checkpoint(directory: scaled.path), recipes: CacheRecipes(.fp8E4M3), layerCount: 6)
    #expect(found.layers[5] == DecodeScales(key: 1, value: 2) && found.layers[0] == .one)
  }
}
