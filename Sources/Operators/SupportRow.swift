import KVQuantization

/// One row of the support table: what a backend does in a phase for a kind of attention. Rows are data; the answers, the error
/// messages, `nibble backends`, the test grid and docs/attention-backends.md are all read from them.
public struct SupportRow: Hashable, Sendable {
  public enum Kind: String, CaseIterable, Hashable, Sendable {
    case gqa = "GQA"
    case mla = "MLA"
  }

  /// Which numbers are taken.
  public enum Numbers: Hashable, Sendable, CustomStringConvertible {
    case any
    case multiples(of: Int)
    case oneOf([Int])
    case range(ClosedRange<Int>)

    public func contains(_ number: Int) -> Bool {
      switch self {
      case .any: number > 0
      case .multiples(let unit): number > 0 && number % unit == 0
      case .oneOf(let numbers): numbers.contains(number)
      case .range(let range): range.contains(number)
      }
    }

    /// The taken number nearest to one that isn't.
    func nearest(to number: Int) -> Int? {
      // Whatever a flag says, the sums below don't overflow.
      let number = min(max(number, 0), 1 << 32)
      return switch self {
      case .any: nil
      case .multiples(let unit): max(unit, (number + unit / 2) / unit * unit)
      case .oneOf(let numbers): numbers.min { abs($0 - number) < abs($1 - number) }
      case .range(let range): min(max(number, range.lowerBound), range.upperBound)
      }
    }

    public var description: String {
      switch self {
      case .any: "any"
      case .multiples(let unit): "multiples of \(unit)"
      case .oneOf(let numbers): numbers.map(String.init).joined(separator: ", ")
      case .range(let range): "\(range.lowerBound) to \(range.upperBound)"
      }
    }
  }

  /// Access to some recipes, from an instruction set on.
  public struct Access: Hashable, Sendable {
    public let recipes: [KVRecipe]
    public let access: CacheAccess
    /// CPU backends: the level that the access needs.
    public let minimumLevel: AttentionDevice.CPULevel
    /// Query heads a KV head up to which the access holds; nil for any number.
    public let maximumGroupSize: Int?

    public init(
      _ recipes: [KVRecipe], _ access: CacheAccess, from minimumLevel: AttentionDevice.CPULevel = .portable,
      upTo maximumGroupSize: Int? = nil
    ) {
      self.recipes = recipes
      self.access = access
      self.minimumLevel = minimumLevel
      self.maximumGroupSize = maximumGroupSize
    }

    func fits(_ recipe: KVRecipe, _ device: AttentionDevice) -> Bool {
      guard recipes.contains(recipe) else { return false }
      if case .cpu(let level) = device { return level >= minimumLevel }
      return true
    }
  }

  public enum Device: Hashable, Sendable {
    case cpu
    /// From a compute capability on, ten times major plus minor.
    case cuda(minimum: Int)
  }

  public let backend: String
  public let phase: AttentionPhase
  public let kind: Kind
  public let device: Device
  /// Access to keys and values, or to MLA's latent; the first that fits a recipe and level counts.
  public let access: [Access]
  /// Access to MLA's rotary key.
  public let ropeAccess: [Access]
  /// Of a head, or of MLA's latent and, where nothing else is said, rotary key.
  public let dimensions: Numbers
  public let ropeDimensions: Numbers?
  public let groupSizes: Numbers
  public let pageSizes: Numbers
  /// Draft tokens in a decode step.
  public let draftTokens: Numbers
  /// The backend that takes what this one refuses.
  public let fallback: String

  public init(
    backend: String, phase: AttentionPhase, kind: Kind, device: Device, access: [Access],
    ropeAccess: [Access] = [], dimensions: Numbers, ropeDimensions: Numbers? = nil,
    groupSizes: Numbers, pageSizes: Numbers, draftTokens: Numbers, fallback: String
  ) {
    self.backend = backend
    self.phase = phase
    self.kind = kind
    self.device = device
    self.access = access
    self.ropeAccess = ropeAccess
    self.dimensions = dimensions
    self.ropeDimensions = ropeDimensions
    self.groupSizes = groupSizes
    self.pageSizes = pageSizes
    self.draftTokens = draftTokens
    self.fallback = fallback
  }

  /// How a recipe is read on a device; nil where it isn't.
  /// - Parameters:
  ///   - groupSize: query heads that share a KV head.
  ///   - isRope: asks for MLA's rotary key.
  public func access(
    to recipe: KVRecipe, on device: AttentionDevice, groupSize: Int, isRope: Bool = false
  ) -> CacheAccess? {
    (isRope ? ropeAccess : access)
      .first { $0.fits(recipe, device) && groupSize <= $0.maximumGroupSize ?? .max }?.access
  }

  /// The same for any group size, in words.
  func accessText(to recipe: KVRecipe, on device: AttentionDevice, isRope: Bool) -> String {
    var parts: [String] = []
    for rule in isRope ? ropeAccess : access where rule.fits(recipe, device) {
      guard let limit = rule.maximumGroupSize else {
        parts.append(rule.access.description)
        break
      }
      parts.append("\(rule.access) up to \(limit) heads")
    }
    return parts.isEmpty ? "-" : parts.joined(separator: ", else ")
  }

  /// Recipes that are read in any way (rotary keys left out).
  public var recipes: [KVRecipe] {
    KVRecipe.allCases.filter { recipe in access.contains { $0.recipes.contains(recipe) } }
  }
}
