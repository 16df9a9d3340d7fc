import Checkpoints
import KVQuantization
import TestSupport
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

@Suite struct CheckpointTests {
  let directory: TemporaryFolder
  let config = #"""
    {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8,
     "vocab_size": 4, "max_position_embeddings": 16, "num_attention_heads": 2, "eos_token_id": 3}
    """#

  init() throws { directory = try TemporaryFolder() }

  @Test func readsTheShippedModel() throws {
    let checkpoint = try Checkpoint(directory: Repository.model("tiny-qwen3"))
    #expect(checkpoint.configuration.architecture == .qwen3)
    #expect(checkpoint.tensorNames.count == 68)
    #expect(checkpoint.generation.eosTokenIDs == [4095, 4093])
    #expect(checkpoint.generation.maxNewTokens == 256)
    let embedding = try checkpoint.tensor(named: "model.embed_tokens.weight")
    #expect(embedding.shape == [4096, 384] && embedding.dtype == .bfloat16)
    #expect(embedding.bytes.count == 4096 * 384 * 2)
  }

  @Test func readsShards() throws {
    try directory.write("config.json", config)
    try directory.write(
      "a.safetensors", tensorFile(header: #"{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#, dataBytes: 2))
    try directory.write(
      "b.safetensors", tensorFile(header: #"{"y":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#, dataBytes: 3))
    try directory.write(
      "model.safetensors.index.json", #"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#)
    let checkpoint = try Checkpoint(directory: directory.path)
    #expect(checkpoint.tensorNames == ["x", "y"])
    #expect(checkpoint.files.count == 2)
    #expect(try checkpoint.tensor(named: "y").shape == [3])
    #expect(checkpoint.generation.eosTokenIDs == [3])
    #expect(throws: CheckpointError.missingTensor(name: "z", path: directory.path)) {
      try checkpoint.tensor(named: "z")
    }
  }

  @Test(arguments: [
    (#"{"weight_map": {"z": "a.safetensors"}}"#, "'z' is not in a.safetensors"),
    (#"{"weight_map": {"x": "../a.safetensors"}}"#, "not the name of a file"),
    (#"{"weight_map": {"x": "/etc/passwd"}}"#, "not the name of a file"),
    (#"{"weight_map": {"x": ""}}"#, "not the name of a file"),
    (#"{"weight_map": {"x": 3}}"#, "not to a file name"),
    (#"{"weight_map": {"x": "missing.safetensors"}}"#, "No such file"),
    (#"{"weight_map": []}"#, "no 'weight_map'"), ("{}", "no 'weight_map'"), ("", "JSON ends"),
  ])
  func refusesABadIndex(index: String, expected: String) throws {
    try directory.write("config.json", config)
    try directory.write(
      "a.safetensors", tensorFile(header: #"{"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#, dataBytes: 2))
    try directory.write("model.safetensors.index.json", index)
    let error = #expect(throws: CheckpointError.self) { try Checkpoint(directory: directory.path) }
    #expect(error?.description.contains(expected) == true, "\(error?.description ?? "")")
  }

  /// A file that is there and can't be read is no file that is missing: scales or defaults would be dropped in silence.
  @Test(arguments: ["generation_config.json", "hf_quant_config.json", "kv_scales.json"])
  func filesThatCannotBeReadAreNamed(name: String) throws {
    try directory.write("config.json", config)
    try directory.write("model.safetensors", tensorFile(header: "{}", dataBytes: 0))
    func load() throws -> KVScaleSet? { try KVScaleSet.found(for: Checkpoint(directory: directory.path)) }
    #expect(try load() == nil)
    // A link to itself.
    symlink(directory.file(name), directory.file(name))
    let error = #expect(throws: CheckpointError.self) { try load() }
    #expect(
      error?.description.contains("\(name): Too many levels of symbolic links") == true, "\(error?.description ?? "")")
  }

  @Test func missingFilesAreNamed() throws {
    let missing = #expect(throws: CheckpointError.self) { try Checkpoint(directory: "/no/such/model") }
    #expect(missing?.description == "can't read /no/such/model/config.json: No such file or directory")
    try directory.write("config.json", config)
    let empty = #expect(throws: CheckpointError.self) { try Checkpoint(directory: directory.path) }
    #expect(empty?.description.contains("found neither") == true)
  }
}
