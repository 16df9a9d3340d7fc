import JSON

/// Defaults for sampling and stopping from generation_config.json; nil where the file says nothing.
public struct GenerationConfiguration: Hashable, Sendable {
  public var eosTokenIDs: [Int32] = []
  public var bosTokenID: Int32?
  public var padTokenID: Int32?
  public var doSample: Bool?
  public var temperature: Double?
  public var topK: Int?
  public var topP: Double?
  public var minP: Double?
  public var repetitionPenalty: Double?
  public var maxNewTokens: Int?

  public init() {}

  /// Reads `directory`/generation_config.json; without one, or where it is silent, token ids come from config.json.
  /// - Throws: `CheckpointError`.
  public init(directory: String, model: ModelConfiguration) throws(CheckpointError) {
    let path = "\(directory)/generation_config.json"
    let document: JSONValue
    do throws(JSONError) {
      document = try JSONValue.parse(ifPresent: path) ?? [:]
    } catch { throw .json(path: path, error) }
    try self.init(json: document, path: path)
    if eosTokenIDs.isEmpty { eosTokenIDs = model.eosTokenIDs }
    bosTokenID = bosTokenID ?? model.bosTokenID
    padTokenID = padTokenID ?? model.padTokenID
  }

  /// - Parameter path: named in errors.
  public init(json: JSONValue, path: String = "generation_config.json") throws(CheckpointError) {
    let reader = try ConfigurationReader(json, path: path)
    eosTokenIDs = try reader.tokenIDs("eos_token_id") ?? []
    bosTokenID = try reader.tokenIDs("bos_token_id")?.first
    padTokenID = try reader.tokenIDs("pad_token_id")?.first
    doSample = reader.value("do_sample") == nil ? nil : try reader.boolean("do_sample", default: false)
    temperature = try reader.optionalNumber("temperature", 0...1e6)
    topK = try reader.optionalInteger("top_k", 0...Int(Int32.max))
    topP = try reader.optionalNumber("top_p", 0...1)
    minP = try reader.optionalNumber("min_p", 0...1)
    repetitionPenalty = try reader.optionalNumber("repetition_penalty", 1e-6...1e6)
    maxNewTokens = try reader.optionalInteger("max_new_tokens", 0...Int(Int32.max))
  }
}
