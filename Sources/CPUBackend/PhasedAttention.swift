import Operators
import PagedCache

/// Prefill on one backend, decode on another: a sequence that brings one token is decode.
///
/// The two round differently, so a token's bits depend on whether its chunk was one token long; the support registry warns of it.
public final class PhasedAttention: AttentionBackend {
  public let name: String
  private let prefill: any AttentionBackend
  private let decode: any AttentionBackend
  private var part = StepBatch()

  public init(prefill: any AttentionBackend, decode: any AttentionBackend) {
    name = "\(prefill.name)+\(decode.name)"
    self.prefill = prefill
    self.decode = decode
  }

  public func attend(_ call: AttentionCall, batch: StepBatch, pool: PagePool) {
    var first = 0
    while first < batch.sequenceCount {
      let isDecode = Self.tokenCount(batch, first) == 1
      var end = first + 1
      while end < batch.sequenceCount, (Self.tokenCount(batch, end) == 1) == isDecode { end += 1 }
      let backend = isDecode ? decode : prefill
      if first == 0, end == batch.sequenceCount {
        backend.attend(call, batch: batch, pool: pool)
      } else {
        let row = copy(batch, first..<end)
        var call = call
        call.queries += row * call.queryStride
        call.output += row * call.outputStride
        backend.attend(call, batch: part, pool: pool)
      }
      first = end
    }
  }

  private static func tokenCount(_ batch: StepBatch, _ sequence: Int) -> Int32 {
    batch.newTokenCounts[sequence]
  }

  /// Fills `part` with some neighbouring sequences; returns their first row.
  private func copy(_ batch: StepBatch, _ sequences: Range<Int>) -> Int {
    part.removeAll()
    for sequence in sequences {
      let rows = Int(batch.queryOffsets[sequence])..<Int(batch.queryOffsets[sequence + 1])
      let pages = Int(batch.pageTableOffsets[sequence])..<Int(batch.pageTableOffsets[sequence + 1])
      part.append(
        tokens: batch.tokenIDs[rows], start: Int(batch.contextLengths[sequence]) - rows.count,
        pages: batch.pageTables[pages], logits: .none)
    }
    return Int(batch.queryOffsets[sequences.lowerBound])
  }
}
