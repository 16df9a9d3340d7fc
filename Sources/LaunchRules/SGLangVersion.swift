/// What SGLang's FP4 KV cache handler checks, as data, with the version it comes from.
public struct SGLangVersion: Hashable, Sendable {
  /// As `--engine-version` takes it.
  public let name: String
  /// Where the rules were read.
  public let source: String
  /// FP4 names of --kv-cache-dtype that it takes.
  public let recipes: [String]
  /// Names that it knows and refuses or renamed, with what it says.
  public let retiredRecipes: [String: String]
  /// Decode backends beside an fa4 prefill.
  public let decodeBesideFA4MLA: [String]
  public let decodeBesideFA4MHA: [String]
  /// Backends for both phases.
  public let bothMLA: [String]
  public let bothMHA: [String]
  /// Backends whose own validator refuses FP4 although the handler's list has them.
  public let refusedByOwnValidator: [String]
  /// Devices that FP4 runs on.
  public let devices: [String]
  /// Options that FP4 doesn't go with.
  public let refusedOptions: [String]
  /// NVFP4 as a recipe of its own, with its resolution of backends; nil before there was one.
  public let nvfp4: SGLangNVFP4?

  public static let known = [introduction, release0523]

  /// - Returns: nil for an unknown name.
  public static func named(_ name: String) -> SGLangVersion? {
    known.first { $0.name == name || "v\($0.name)" == name || $0.name.dropFirst() == name[...] }
  }

  /// The handler's introduction, December 2025.
  public static let introduction = SGLangVersion(
    name: "#14467", source: "SGLang #14467 (December 2025)", recipes: ["fp4_e2m1"],
    retiredRecipes: [:], decodeBesideFA4MLA: ["cutlass_mla", "flashinfer", "trtllm_mla"],
    decodeBesideFA4MHA: ["triton", "torch_native", "flex_attention"],
    bothMLA: ["cutlass_mla", "flashinfer", "trtllm_mla", "flashmla"],
    bothMHA: ["triton", "torch_native", "flex_attention", "trtllm_mha"], refusedByOwnValidator: [],
    devices: ["cuda"], refusedOptions: [], nvfp4: nil)

  /// The release of autumn 2026.
  public static let release0523 = SGLangVersion(
    name: "0.5.23", source: "SGLang 0.5.23 (autumn 2026)", recipes: ["nvfp4", "fp4_mx_block16"],
    retiredRecipes: [
      "fp4_e2m1": "was renamed fp4_mx_block16", "mxfp4": "is reserved and not implemented",
    ], decodeBesideFA4MLA: ["flashinfer", "trtllm_mla"],
    decodeBesideFA4MHA: ["triton", "torch_native", "flex_attention"], bothMLA: ["flashinfer", "trtllm_mla"],
    bothMHA: ["triton", "torch_native", "flex_attention", "trtllm_mha"], refusedByOwnValidator: ["trtllm_mla"],
    devices: ["cuda"], refusedOptions: ["enable-unified-memory"], nvfp4: .release0523)

  /// Whether a recipe's name means something there, be it refused.
  func knows(_ recipe: String) -> Bool { recipes.contains(recipe) || retiredRecipes[recipe] != nil }

  /// Backends that a launch without one gets: by compute capability (nil for any other) and kind of attention.
  static let defaults: [(capabilities: [Int]?, mha: String, mla: String)] = [
    ([90], "fa3", "fa3"), ([100, 103], "trtllm_mha", "flashinfer"), (nil, "flashinfer", "triton"),
  ]

  /// nil where it depends on a GPU that isn't known.
  func defaultBackend(usesMLA: Bool, capability: Int?) -> String? {
    guard let capability else { return nil }
    return Self.defaults.first { $0.capabilities?.contains(capability) ?? true }.map { usesMLA ? $0.mla : $0.mha }
  }
}
