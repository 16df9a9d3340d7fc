/// A row of the documented support matrix.
public struct SGLangBackend: Hashable, Sendable {
  /// Which speculation is documented to work.
  public enum Drafts: Hashable, Sendable {
    case none
    /// One branch (topk = 1).
    case chain
    /// Several branches, in pages of one token only.
    case treeInPagesOfOne
    case tree
  }

  public let name: String
  /// Page sizes that it works in; empty for any.
  public let pageSizes: [Int]
  /// What another page size becomes; nil where that isn't documented.
  public let snapsTo: Int?
  public let fp8: Bool
  public let drafts: Drafts
  public let prefillOnly: Bool

  private init(
    _ name: String, pages: [Int] = [], snapsTo: Int? = nil, fp8: Bool, _ drafts: Drafts, prefillOnly: Bool = false
  ) {
    self.name = name
    pageSizes = pages
    self.snapsTo = snapsTo
    self.fp8 = fp8
    self.drafts = drafts
    self.prefillOnly = prefillOnly
  }

  public static func all(usesMLA: Bool) -> [SGLangBackend] { usesMLA ? mla : mha }

  public static let mha = [
    SGLangBackend("flashinfer", fp8: true, .tree),
    SGLangBackend("fa3", fp8: true, .tree),
    SGLangBackend("fa4", pages: [128], snapsTo: 128, fp8: false, .none, prefillOnly: true),
    SGLangBackend("triton", pages: [1], fp8: false, .tree),
    SGLangBackend("torch_native", pages: [1], fp8: true, .none),
    SGLangBackend("flex_attention", pages: [1], fp8: false, .none),
    SGLangBackend("trtllm_mha", pages: [16, 32, 64, 128], snapsTo: 64, fp8: true, .chain),
    SGLangBackend("dual_chunk_flash_attn", fp8: false, .none),
  ]

  public static let mla = [
    SGLangBackend("flashinfer", pages: [1], fp8: false, .chain),
    SGLangBackend("flashmla", pages: [64], snapsTo: 64, fp8: true, .chain),
    SGLangBackend("cutlass_mla", pages: [128], snapsTo: 128, fp8: true, .chain),
    SGLangBackend("trtllm_mla", pages: [32, 64], snapsTo: 64, fp8: true, .chain),
    SGLangBackend("fa3", fp8: false, .treeInPagesOfOne),
    SGLangBackend("triton", fp8: false, .treeInPagesOfOne),
    SGLangBackend("fa4", pages: [1], fp8: false, .none, prefillOnly: true),
  ]

  /// Backends of other platforms.
  public static let elsewhere = ["aiter", "wave", "ascend", "intel_xpu", "intel_amx"]
}
