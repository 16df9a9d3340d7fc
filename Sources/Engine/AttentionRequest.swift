import CPUBackend
import CSIMD
import Checkpoints
import KVQuantization
import ModelFamilies
import Operators

/// Which attention backends are asked for (`--attention-backend`, `--prefill-attention-backend`, `--decode-attention-backend`), and
/// the cache they must read. The support registry decides.
public struct AttentionRequest: Hashable, Sendable {
  /// "auto" or a backend's name.
  public var prefill: String
  public var decode: String
  public var precision: AttentionPrecision
  public var recipes: CacheRecipes
  public var pageSize: Int
  /// Draft tokens in a decode step.
  public var draftTokenCount: Int

  /// - Parameters:
  ///   - backend: for both phases.
  ///   - prefill: for prefill, where it differs.
  ///   - decode: for decode, where it differs.
  ///   - precision: of the `cpu` backend; others have one alone.
  public init(
    backend: String = "auto", prefill: String? = nil, decode: String? = nil, precision: AttentionPrecision = .full,
    recipes: CacheRecipes = CacheRecipes(.nvfp4),
    pageSize: Int = 64, draftTokenCount: Int = 0
  ) {
    self.prefill = prefill ?? backend
    self.decode = decode ?? backend
    self.precision = precision
    self.recipes = recipes
    self.pageSize = pageSize
    self.draftTokenCount = draftTokenCount
  }

  /// The device that models run on here: the CPU at its active level.
  public static var device: AttentionDevice {
    .cpu(AttentionDevice.CPULevel(rawValue: Int(nb_level_active().rawValue)) ?? .portable)
  }

  /// - Throws: `SupportError` with every reason why not, and the remedies.
  public func resolve(_ model: ModelConfiguration) throws(SupportError) -> AttentionChoice {
    let subject = AttentionSubject(
      geometry: model.kvGeometry, queryHeadCount: model.queryHeadCount, key: recipes.key, value: recipes.value,
      rope: recipes.rope, pageSize: pageSize, draftTokenCount: draftTokenCount, device: Self.device)
    return try SupportRegistry.standard.resolve(prefill: prefill, decode: decode, subject)
  }

  func makeBackend(_ choice: AttentionChoice, workers: WorkerPool) -> any AttentionBackend {
    func backend(_ name: String) -> any AttentionBackend {
      name == "cpu" ? FastAttention(workers: workers, precision: precision) : ReferenceAttention()
    }
    let decode = backend(choice.decode)
    return choice.prefill == choice.decode ? decode : PhasedAttention(prefill: backend(choice.prefill), decode: decode)
  }

  /// What --attention-precision fast does here.
  private func precisionNote(_ choice: AttentionChoice) -> String? {
    guard precision == .fast, [choice.prefill, choice.decode].contains("cpu") else { return nil }
    return AttentionPrecision.matters(at: nb_level_active(), key: recipes.key, value: recipes.value)
      ? "rounds to 16 bits beside four-bit codes" : "where --attention-precision fast changes nothing"
  }

  /// Name and reasons in one line each.
  func decision(_ choice: AttentionChoice, threadCount: Int) -> (name: String, reason: String) {
    let threads = "\(threadCount) \(threadCount == 1 ? "thread" : "threads")"
    let machine = ["\(Self.device)", threads, precisionNote(choice)].compactMap(\.self).joined(separator: ", ")
    guard choice.prefill != choice.decode else {
      let access = choice.decodeAccess.map(\.description).joined(separator: "/")
      let asked = decode == "auto" ? "auto, the first that can" : "asked for"
      return (choice.decode, "\(asked); reads the cache \(access) (\(machine))")
    }
    return (
      "\(choice.prefill)+\(choice.decode)", (choice.reasons + choice.warnings).joined(separator: "; ") + " (\(machine))"
    )
  }
}
